/* The end of MPI, for the program, its tests and its benchmarks. */
#ifndef TRAIN_MPI_END_H
#define TRAIN_MPI_END_H

/* [collective over MPI_COMM_WORLD] MPI_Finalize, behind which the loaded libraries stay mapped. Open MPI 4.1 unmaps its
 * plug-ins while a thread of its own may be about to call one: on a busy machine about one process in 500 was killed
 * by SIGSEGV, all its work done. */
void mpi_end(void);

#endif
