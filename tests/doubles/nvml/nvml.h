/* The part of NVML's ABI that the double speaks, and the memory that tests and library share.
 *
 * The declarations follow NVIDIA's documented interface (function names, argument order, struct layouts, error
 * numbers), because the real Python bindings load this library. The shared state is ours; `state.py` mirrors it. */
#ifndef WATTSCALE_NVML_DOUBLE_H
#define WATTSCALE_NVML_DOUBLE_H

#include <stdint.h>

#define MAX_GPUS 72
#define MAX_PIDS 16
#define MAX_MIG 7
#define JOURNAL 4096
#define MAGIC 0x57415454u

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t;
typedef void *nvmlEventSet_t;

enum {
  NVML_SUCCESS = 0,
  NVML_ERROR_UNINITIALIZED = 1,
  NVML_ERROR_INVALID_ARGUMENT = 2,
  NVML_ERROR_NOT_SUPPORTED = 3,
  NVML_ERROR_NOT_FOUND = 6,
  NVML_ERROR_INSUFFICIENT_SIZE = 7,
  NVML_ERROR_TIMEOUT = 10,
  NVML_ERROR_GPU_IS_LOST = 15,
};

/* One slot per function, in the order of FUNCTIONS in state.py. */
enum function {
  F_INIT, F_SHUTDOWN, F_DRIVER_VERSION, F_COUNT, F_HANDLE_BY_INDEX, F_HANDLE_BY_UUID, F_UUID, F_NAME, F_PCI,
  F_GET_LIMIT, F_ENFORCED, F_CONSTRAINTS, F_DEFAULT, F_SET_LIMIT, F_SET_LIMIT_V2, F_POWER_USAGE, F_FIELDS, F_ENERGY,
  F_PROCESSES, F_REASONS, F_MIG, F_PERSISTENCE, F_EVENT_SET_CREATE, F_REGISTER_EVENTS, F_EVENT_WAIT, FUNCTIONS
};

enum flags { IGNORES_WRITES = 1, CLAMPS = 2, LOST = 4, HAS_MODULE = 8, NO_POWER_FIELDS = 16, NO_INSTANT_FIELD = 32 };

struct limits { uint32_t requested, enforced, standard, min, max; };

struct gpu {
  char uuid[96];
  char name[96];
  char bus[32];
  struct limits gpu;
  struct limits module;
  uint32_t usage_mw, instant_mw, average_mw, other_limiter_mw;
  uint64_t energy_mj, reasons;
  uint32_t mig, persistence, flags, pid_count;
  uint32_t pids[MAX_PIDS];
  uint32_t writes, hang_after_write_ms, mig_count;
  char mig_uuids[MAX_MIG][64];
  int32_t error[FUNCTIONS];
  uint32_t hang_ms[FUNCTIONS];
};

struct write_record { uint64_t at_ns; uint32_t slot, asked_mw, enforced_mw, pid; };

struct state {
  uint32_t magic, size, count, event_waiting;
  uint32_t order[MAX_GPUS];
  int32_t error[FUNCTIONS];
  uint32_t hang_ms[FUNCTIONS];
  uint64_t calls[FUNCTIONS];
  uint64_t event_type, event_data;
  uint32_t event_slot, journal_next;
  char driver_version[80];
  struct gpu gpus[MAX_GPUS];
  struct write_record journal[JOURNAL];
};

struct pci_info {
  char bus_legacy[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
};

struct process_info { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };

union value { double d; int si; unsigned ui; unsigned long ul; unsigned long long ull; signed long long sll; unsigned short us; };

struct field_value {
  unsigned field, scope;
  long long timestamp, latency_us;
  unsigned value_type;
  nvmlReturn_t result;
  union value value;
};

struct power_value { unsigned version, scope, mw; };

struct event_data {
  nvmlDevice_t device;
  unsigned long long type, data;
  unsigned gpu_instance, compute_instance;
};

#endif
