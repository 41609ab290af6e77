#include "train/doctor_network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- judging: between hosts ---- */

/* "10.77.0.0/24" and an address of it. */
static bool is_in_subnet(const char *address, const char *subnet, size_t n) {
  char text[48];
  struct in_addr net, mine;
  snprintf(text, sizeof text, "%.*s", (int)n, subnet);
  char *slash = strchr(text, '/');
  if (!slash) return false;
  *slash = '\0';
  long bits = strtol(slash + 1, NULL, 10);
  if (bits < 0 || bits > 32 || inet_pton(AF_INET, text, &net) != 1 || inet_pton(AF_INET, address, &mine) != 1)
    return false;
  uint32_t mask = bits == 0 ? 0 : UINT32_MAX << (32 - bits);
  return (ntohl(net.s_addr) & mask) == (ntohl(mine.s_addr) & mask);
}

static bool is_listed(const doctor_interface *i, const char *list) {
  for (const char *word = list; *word != '\0'; word += *word == ',') {
    size_t n = strcspn(word, ",");
    if ((n == strlen(i->name) && strncmp(word, i->name, n) == 0) || is_in_subnet(i->address, word, n)) return true;
    word += n;
  }
  return false;
}

bool doctor_interface_is_allowed(const doctor_interface *i, const char *include, const char *exclude) {
  if (!i->is_up || i->address[0] == '\0') return false;
  if (include[0] != '\0') return is_listed(i, include);
  return !i->is_loopback && !is_listed(i, exclude);
}

/* Bridges of containers and virtual machines: the same address on every host, and no way to another one. */
static bool is_bridge(const char *name) {
  static const char *const begins[] = {"docker", "virbr", "br-", "cni", "podman", "lxcbr", "lxdbr", "vboxnet"};
  for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++)
    if (strncmp(name, begins[i], strlen(begins[i])) == 0) return true;
  return false;
}

typedef struct interface_list {
  char text[200];
  size_t n;
} interface_list;

static void put_interface(interface_list *to, const doctor_interface *i) {
  char speed[32] = "";
  if (i->speed_mbit > 0) snprintf(speed, sizeof speed, " (%g Gbit/s)", i->speed_mbit / 1000.0);
  int n = snprintf(to->text + to->n, sizeof to->text - to->n, "%s%s%s", to->n > 0 ? ", " : "", i->name, speed);
  to->n = n < 0 || to->n + (size_t)n >= sizeof to->text ? sizeof to->text - 1 : to->n + (size_t)n;
}

static void check_tcp(const doctor_network *network, doctor_findings *to) {
  interface_list allowed = {.n = 0};
  const doctor_interface *bridge = NULL, *other = NULL;
  for (int k = 0; k < network->n_interfaces; k++) {
    const doctor_interface *i = &network->interface[k];
    if (!doctor_interface_is_allowed(i, network->include, network->exclude)) continue;
    put_interface(&allowed, i);
    if (is_bridge(i->name)) bridge = i;
    if (!is_bridge(i->name)) other = i;
  }
  if (allowed.n == 0)
    doctor_add(to, DOCTOR_ERROR, "network",
               "no interface for messages to other hosts%s%s; OMPI_MCA_btl_tcp_if_include=NAME has to name one that is "
               "up (`ip -brief address`)",
               network->include[0] != '\0' ? ": btl_tcp_if_include is " : "", network->include);
  else if (bridge)
    doctor_add(to, DOCTOR_WARNING, "network",
               "TCP may take %s, which does not lead to other hosts, of: %s; OMPI_MCA_btl_tcp_if_include=%s",
               bridge->name, allowed.text, other ? other->name : "NAME");
  else
    doctor_add(to, DOCTOR_OK, "network", "TCP by %s", allowed.text);
}

void doctor_check_network(const doctor_network *network, int n_hosts, doctor_findings *to) {
  if (n_hosts == 1)
    doctor_add(to, DOCTOR_OK, "network", "not used: one host");
  else if (network->pml[0] != '\0' && strcmp(network->pml, "ob1") != 0)
    doctor_add(to, DOCTOR_OK, "network", "chosen by %s", network->pml);
  else
    check_tcp(network, to);
}

/* ---- judging: within a host ---- */

void doctor_check_shared_memory(const doctor_network *network, int n_node, doctor_findings *to) {
  static const char cure[] = "OMPI_MCA_btl_vader_single_copy_mechanism=none makes runs possible, in a container "
                             "--cap-add=SYS_PTRACE makes them fast";
  const char *copy = network->copy;
  bool is_single = copy[0] != '\0' && strcmp(copy, "none") != 0 && strcmp(copy, "emulated") != 0;
  if (n_node == 1)
    doctor_add(to, DOCTOR_OK, "shared memory", "not used: one rank on the host");
  else if (copy[0] == '\0')
    doctor_add(to, DOCTOR_OK, "shared memory", "by %s", network->pml[0] != '\0' ? network->pml : "a way unknown");
  else if (strcmp(copy, "cma") == 0 && network->copy_errno != 0)
    doctor_add(to, DOCTOR_ERROR, "shared memory",
               "Open MPI copies between processes (CMA), which the system refuses: %s; %s",
               strerror(network->copy_errno), cure);
  else if (!is_single)
    doctor_add(to, DOCTOR_WARNING, "shared memory",
               "every message is copied twice (single_copy_mechanism %s): ranks of other user namespaces or containers "
               "cannot read each other; start all ranks of a host in one, in a container with --cap-add=SYS_PTRACE",
               copy);
  else
    doctor_add(to, DOCTOR_OK, "shared memory", "single copies (%s)", copy);
}
