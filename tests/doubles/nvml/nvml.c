/* A library with NVML's ABI whose GPUs live in a memory-mapped file (WATTSCALE_NVML_STATE).
 *
 * Tests change the file while an agent runs: limits, processes, errors by call, hangs, lost and renumbered GPUs.
 * A handle is an index, so that a renumbering makes an old handle mean another GPU: the worst that a caller must
 * survive. Built with -DOLD_DRIVER it lacks the functions that older drivers lack. */
#include "nvml.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static struct state *state;

/* Hang for as long as the field says; a test that sets it to 0 lets the call go on at once. */
static void pause_ms(const unsigned *ms) {
  const struct timespec slice = {0, 5 * 1000000L};
  struct timespec now, began;
  clock_gettime(CLOCK_MONOTONIC, &began);
  for (;;) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long past_ms = (now.tv_sec - began.tv_sec) * 1000ll + (now.tv_nsec - began.tv_nsec) / 1000000ll;
    if (past_ms >= (long long)__atomic_load_n(ms, __ATOMIC_SEQ_CST)) return;
    nanosleep(&slice, NULL);
  }
}

static nvmlReturn_t enter(enum function f) {
  if (!state) return NVML_ERROR_UNINITIALIZED;
  __atomic_fetch_add(&state->calls[f], 1, __ATOMIC_SEQ_CST);
  pause_ms(&state->hang_ms[f]);
  return state->error[f];
}

/* The common beginning of every call on one device. */
static nvmlReturn_t enter_gpu(enum function f, nvmlDevice_t device, struct gpu **out) {
  nvmlReturn_t r = enter(f);
  if (r) return r;
  uintptr_t index = (uintptr_t)device;
  if (index < 1 || index > state->count) return NVML_ERROR_INVALID_ARGUMENT;
  struct gpu *g = &state->gpus[state->order[index - 1]];
  pause_ms(&g->hang_ms[f]);
  if (g->error[f]) return g->error[f];
  if (g->flags & LOST) return NVML_ERROR_GPU_IS_LOST;
  *out = g;
  return NVML_SUCCESS;
}

static nvmlReturn_t attach(void) {
  const char *path = getenv("WATTSCALE_NVML_STATE");
  int fd = path ? open(path, O_RDWR) : -1;
  if (fd < 0) return 9; /* driver not loaded */
  /* What was mapped before stays: a call that hangs may still be looking at it. */
  state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (state == MAP_FAILED || state->magic != MAGIC || state->size != sizeof *state) {
    state = NULL;
    return 999;
  }
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  nvmlReturn_t r = attach();
  return r ? r : enter(F_INIT);
}
nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlShutdown(void) { return enter(F_SHUTDOWN); }

const char *nvmlErrorString(nvmlReturn_t r) {
  (void)r;
  return "an error made by the double";
}

static nvmlReturn_t copy(char *out, unsigned size, const char *text) {
  if (strlen(text) + 1 > size) return NVML_ERROR_INSUFFICIENT_SIZE;
  strcpy(out, text);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned size) {
  nvmlReturn_t r = enter(F_DRIVER_VERSION);
  return r ? r : copy(out, size, state->driver_version);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
  nvmlReturn_t r = enter(F_COUNT);
  if (!r) *count = state->count;
  return r;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
  struct gpu *g;
  *device = (nvmlDevice_t)(uintptr_t)(index + 1);
  return enter_gpu(F_HANDLE_BY_INDEX, *device, &g);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
  nvmlReturn_t r = enter(F_HANDLE_BY_UUID);
  if (r) return r;
  for (unsigned i = 0; i < state->count; i++) {
    struct gpu *g = &state->gpus[state->order[i]];
    if (strcmp(g->uuid, uuid) != 0) continue;
    if (g->error[F_HANDLE_BY_UUID]) return g->error[F_HANDLE_BY_UUID];
    if (g->flags & LOST) return NVML_ERROR_GPU_IS_LOST;
    *device = (nvmlDevice_t)(uintptr_t)(i + 1);
    return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}

#define GPU_CALL(F)                          \
  struct gpu *g;                             \
  nvmlReturn_t r = enter_gpu(F, device, &g); \
  if (r) return r

/* A MIG instance's handle: the card's handle and the slot, apart from all handles of cards. */
#define MIG_BASE 0x10000u

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned size) {
  uintptr_t value = (uintptr_t)device;
  if (state && value >= MIG_BASE) {
    struct gpu *card = &state->gpus[state->order[(value - MIG_BASE) / MAX_MIG]];
    return copy(out, size, card->mig_uuids[(value - MIG_BASE) % MAX_MIG]);
  }
  GPU_CALL(F_UUID);
  return copy(out, size, g->uuid);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned size) {
  GPU_CALL(F_NAME);
  return copy(out, size, g->name);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, struct pci_info *out) {
  GPU_CALL(F_PCI);
  memset(out, 0, sizeof *out);
  return copy(out->bus_id, sizeof out->bus_id, g->bus);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned *mw) {
  GPU_CALL(F_GET_LIMIT);
  *mw = g->gpu.requested;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *mw) {
  GPU_CALL(F_ENFORCED);
  *mw = g->gpu.enforced;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *low, unsigned *high) {
  GPU_CALL(F_CONSTRAINTS);
  *low = g->gpu.min;
  *high = g->gpu.max;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned *mw) {
  GPU_CALL(F_DEFAULT);
  *mw = g->gpu.standard;
  return NVML_SUCCESS;
}

static nvmlReturn_t write_limit(struct gpu *g, struct limits *l, unsigned mw) {
  unsigned asked = mw;
  if (mw < l->min || mw > l->max) {
    if (!(g->flags & CLAMPS)) return NVML_ERROR_INVALID_ARGUMENT;
    mw = mw < l->min ? l->min : l->max;
  }
  if (!(g->flags & IGNORES_WRITES)) {
    l->requested = mw;
    l->enforced = g->other_limiter_mw && g->other_limiter_mw < mw ? g->other_limiter_mw : mw;
  }
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  unsigned next = __atomic_fetch_add(&state->journal_next, 1, __ATOMIC_SEQ_CST);
  struct write_record *record = &state->journal[next % JOURNAL];
  record->at_ns = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
  record->slot = (uint32_t)(g - state->gpus);
  record->asked_mw = asked;
  record->enforced_mw = l->enforced;
  record->pid = (uint32_t)getpid();
  __atomic_fetch_add(&g->writes, 1, __ATOMIC_SEQ_CST);
  pause_ms(&g->hang_after_write_ms);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned mw) {
  GPU_CALL(F_SET_LIMIT);
  return write_limit(g, &g->gpu, mw);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *mw) {
  GPU_CALL(F_POWER_USAGE);
  *mw = g->usage_mw;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *mj) {
  GPU_CALL(F_ENERGY);
  *mj = g->energy_mj;
  return NVML_SUCCESS;
}

static nvmlReturn_t processes(nvmlDevice_t device, unsigned *count, struct process_info *out) {
  GPU_CALL(F_PROCESSES);
  unsigned room = *count;
  *count = g->pid_count;
  if (g->pid_count == 0) return NVML_SUCCESS;
  if (!out || room < g->pid_count) return NVML_ERROR_INSUFFICIENT_SIZE;
  for (unsigned i = 0; i < g->pid_count; i++) {
    out[i] = (struct process_info){g->pids[i], 1ull << 30, 0xFFFFFFFFu, 0xFFFFFFFFu};
  }
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count, struct process_info *out) {
  return processes(device, count, out);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
  GPU_CALL(F_REASONS);
  *reasons = g->reasons;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned *mode) {
  GPU_CALL(F_PERSISTENCE);
  *mode = g->persistence;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
  *set = (nvmlEventSet_t)1;
  return enter(F_EVENT_SET_CREATE);
}
nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
  (void)set;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
  (void)types;
  (void)set;
  GPU_CALL(F_REGISTER_EVENTS);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, struct event_data *out, unsigned timeout_ms) {
  (void)set;
  (void)timeout_ms;
  nvmlReturn_t r = enter(F_EVENT_WAIT);
  if (r) return r;
  if (!__atomic_exchange_n(&state->event_waiting, 0, __ATOMIC_SEQ_CST)) return NVML_ERROR_TIMEOUT;
  memset(out, 0, sizeof *out);
  for (unsigned i = 0; i < state->count; i++) {
    if (state->order[i] == state->event_slot) out->device = (nvmlDevice_t)(uintptr_t)(i + 1);
  }
  out->type = state->event_type;
  out->data = state->event_data;
  return NVML_SUCCESS;
}

#ifndef OLD_DRIVER

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, struct process_info *out) {
  return processes(device, count, out);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
  return nvmlDeviceGetCurrentClocksThrottleReasons(device, reasons);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
  GPU_CALL(F_MIG);
  *current = *pending = g->mig;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count) {
  GPU_CALL(F_MIG);
  *count = MAX_MIG;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned slot, nvmlDevice_t *out) {
  GPU_CALL(F_MIG);
  if (slot >= g->mig_count) return NVML_ERROR_NOT_FOUND;
  *out = (nvmlDevice_t)(MIG_BASE + ((uintptr_t)device - 1) * MAX_MIG + slot);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device, struct power_value *value) {
  GPU_CALL(F_SET_LIMIT_V2);
  if (value->scope == 0) return write_limit(g, &g->gpu, value->mw);
  if (value->scope != 1 || !(g->flags & HAS_MODULE)) return NVML_ERROR_NOT_SUPPORTED;
  return write_limit(g, &g->module, value->mw);
}

/* Power fields, by their documented numbers: 185 average, 186 instant, 187 min, 188 max, 189 default, 190 enforced,
 * 192 requested. Scope 1 is the module's. */
static nvmlReturn_t field(const struct gpu *g, struct field_value *v) {
  const struct limits *l = v->scope == 1 ? &g->module : &g->gpu;
  if (v->scope == 1 && !(g->flags & HAS_MODULE)) return NVML_ERROR_NOT_SUPPORTED;
  if ((v->field == 185 || v->field == 186) && (g->flags & NO_POWER_FIELDS)) return NVML_ERROR_NOT_SUPPORTED;
  if (v->field == 186 && (g->flags & NO_INSTANT_FIELD)) return NVML_ERROR_NOT_SUPPORTED;
  v->value_type = 1;
  switch (v->field) {
    case 185: v->value.ui = g->average_mw; return NVML_SUCCESS;
    case 186: v->value.ui = g->instant_mw; return NVML_SUCCESS;
    case 187: v->value.ui = l->min; return NVML_SUCCESS;
    case 188: v->value.ui = l->max; return NVML_SUCCESS;
    case 189: v->value.ui = l->standard; return NVML_SUCCESS;
    case 190: v->value.ui = l->enforced; return NVML_SUCCESS;
    case 192: v->value.ui = l->requested; return NVML_SUCCESS;
    default: return NVML_ERROR_NOT_SUPPORTED;
  }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, struct field_value *values) {
  GPU_CALL(F_FIELDS);
  for (int i = 0; i < count; i++) values[i].result = field(g, &values[i]);
  return NVML_SUCCESS;
}

#endif
