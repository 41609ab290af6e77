#include "train/doctor_units.h"

#include "train/precision.h"

#include <stdio.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif
#ifdef CURVD_HAS_ONEDNN
#include <dnnl.h>
#include <dnnl_debug.h>
#endif

/* AMX-TILE and AMX-BF16 */
static bool processor_has_amx(void) {
#ifdef __x86_64__
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1);
#else
  return false;
#endif
}

static const char *onednn_isa(void) {
#ifdef CURVD_HAS_ONEDNN
  static const char prefix[] = "cpu_isa_";
  const char *isa = dnnl_cpu_isa2str(dnnl_get_effective_cpu_isa());
  return strncmp(isa, prefix, strlen(prefix)) == 0 ? isa + strlen(prefix) : isa;
#else
  return "";
#endif
}

void doctor_units_ask(const config *c, doctor_units *units) {
  const cv_unit *chosen = NULL;
  const char *asked = precision_asked(c);
  *units = (doctor_units){.has_amx = processor_has_amx()};
  cv_unit_list(sizeof units->there, units->there);
  if (precision_unit(c, &chosen, &units->none) == CURVD_OK)
    snprintf(units->chosen, sizeof units->chosen, "%s", chosen->name);
  snprintf(units->asked, sizeof units->asked, "%s", asked ? asked : "");
  snprintf(units->isa, sizeof units->isa, "%s", onednn_isa());
}

/* Those with instructions for bf16 numbers of their own. */
static bool is_fast(const char *unit) {
  return strcmp(unit, "amx") == 0 || strcmp(unit, "avx512-bf16") == 0;
}

static bool may_use_amx(const doctor_units *units) {
  return strstr(units->there, "amx") != NULL;
}

void doctor_check_units(const doctor_units *units, doctor_findings *to) {
  static const char name[] = "matrix units";
  if (units->none.code != CURVD_OK) {
    doctor_add_failure(to, name, &units->none);
  } else if (units->asked[0] != '\0' && !is_fast(units->chosen)) {
    doctor_add(to, DOCTOR_WARNING, name,
               "%s asks for bf16, for which %s has no instructions: fp32 is faster; leave it at fp32%s", units->asked,
               units->chosen, strstr(units->there, "avx512-bf16") != NULL ? ", or matrix_unit at auto" : "");
  } else if (units->has_amx && !may_use_amx(units)) {
    doctor_add(
        to, DOCTOR_WARNING, name,
        "%s; the processor has AMX, and the kernel does not permit it: Linux 5.16 or later does, and a container "
        "must let arch_prctl through",
        units->there);
  } else {
    doctor_add(to, DOCTOR_OK, name, "%s%s%s%s; %s%s", units->there,
               may_use_amx(units) ? "; the kernel permits AMX" : "", units->isa[0] ? "; oneDNN uses " : "", units->isa,
               units->asked[0] ? "in use: " : "none is in use, all is fp32", units->asked[0] ? units->chosen : "");
  }
}
