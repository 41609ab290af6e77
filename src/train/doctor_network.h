/* How messages travel: within a host and between hosts, as Open MPI's own variables (MPI_T) tell it. */
#ifndef TRAIN_DOCTOR_NETWORK_H
#define TRAIN_DOCTOR_NETWORK_H

#include "train/doctor.h"

#include <mpi.h>

enum { DOCTOR_INTERFACES_MAX = 24 };

typedef struct doctor_interface {
  char name[16], address[48]; /* address: IPv4 "10.0.0.5"; "": none */
  bool is_up, is_loopback;
  int speed_mbit; /* 0: the system does not tell */
} doctor_interface;

typedef struct doctor_network {
  char pml[32];                    /* what moves messages: "ob1", "ucx", ...; "": unknown */
  char include[128], exclude[128]; /* btl_tcp_if_include, btl_tcp_if_exclude */
  char copy[32];                   /* btl_vader_single_copy_mechanism, as resolved; "": not asked for */
  int copy_errno;                  /* of reading a neighbour's memory; 0: it works, or was not tried */
  doctor_interface interface[DOCTOR_INTERFACES_MAX];
  int n_interfaces;
} doctor_network;

/* [collective over node, the ranks of one host] */
void doctor_network_ask(MPI_Comm node, doctor_network *network);

/* May Open MPI take that interface? The lists hold names and "10.0.0.0/8". */
bool doctor_interface_is_allowed(const doctor_interface *i, const char *include, const char *exclude);

/* Each adds one line. n_node: ranks of this host. */
void doctor_check_network(const doctor_network *network, int n_hosts, doctor_findings *to);
void doctor_check_shared_memory(const doctor_network *network, int n_node, doctor_findings *to);

#endif
