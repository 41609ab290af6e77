/* Status codes of curvd. One list: the enum, the names and the texts cannot drift apart. */
#ifndef CURVD_STATUS_H
#define CURVD_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, value, text) */
#define CURVD_STATUS_LIST(X)                                                                                           \
  X(CURVD_OK, 0, "success")                                                                                            \
  X(CURVD_ERR_ARGUMENT, -1, "an argument is outside its documented range")                                             \
  X(CURVD_ERR_STATE, -2, "called in the wrong order (see the life cycle in curvd.h)")                                  \
  X(CURVD_ERR_OPTION, -3, "unknown option or value out of range")                                                      \
  X(CURVD_ERR_MEMORY, -4, "out of memory")                                                                             \
  X(CURVD_ERR_MPI, -5, "an MPI call failed")                                                                           \
  X(CURVD_ERR_NUMERIC, -6, "not a finite number, or a factorisation failed")                                           \
  X(CURVD_ERR_LAYOUT, -7, "impossible split of the ranks")                                                             \
  X(CURVD_ERR_IO, -8, "a file cannot be opened, read or written")                                                      \
  X(CURVD_ERR_DATA, -9, "a file's contents are malformed")                                                             \
  X(CURVD_ERR_MISMATCH, -10, "ranks passed different arguments to a collective call")                                  \
  X(CURVD_ERR_SIZE, -11, "a size does not fit (32-bit border of MPI, BLAS or LAPACK)")                                 \
  X(CURVD_ERR_REMOTE, -12, "another rank failed in the same collective call")                                          \
  X(CURVD_ERR_DAMAGE, -13, "numbers changed in memory or on their way")

#define CURVD_STATUS_ENUM(name, value, text) name = value,
typedef enum curvd_status { CURVD_STATUS_LIST(CURVD_STATUS_ENUM) } curvd_status;
#undef CURVD_STATUS_ENUM

#ifdef __cplusplus
}
#endif

#endif
