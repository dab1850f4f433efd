/* A twin of NVML for tests: what the real pynvml loads as libnvidia-ml.so.1, driven by a scenario file.
 *
 * OVERPROOF_NVML_SCENARIO names a file of "key value" lines, read again at every call, so that a test can change
 * it while the driver is in use. A key without an index holds for every GPU, "key.N" for GPU N alone.
 *
 *   gpus 2              how many GPUs there are
 *   temperature.1 91    and likewise power_mw sm_mhz mem_mhz reasons util ecc_uncorrected ecc_corrected
 *                       thermal_ns power_ns processes (a pid) memory_temperature slowdown
 *   lost.0 1            every call about GPU 0 answers GPU_IS_LOST
 *   blocks.0 1          every call about GPU 0 does not return for as long as this stays
 *   init 9              what nvmlInitWithFlags returns
 *   xid 79 / xid_gpu 1  deliver this XID once; it counts as delivered until xid_serial changes
 *   silent_power.0 1    the power sensor of GPU 0 answers UNKNOWN
 *
 * Built without -DWITH_VIOLATION it lacks nvmlDeviceGetViolationStatus, as a driver may.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INVALID_ARGUMENT = 2, TIMEOUT = 10, GPU_IS_LOST = 15, UNKNOWN = 999 };

typedef struct { int index; } gpu_t;
static gpu_t gpus[16];
static long long delivered = -1;

static int find(const char *wanted, long long *value) {
    const char *path = getenv("OVERPROOF_NVML_SCENARIO");
    FILE *file = path ? fopen(path, "r") : NULL;
    char key[64];
    long long number;
    int found = 0;
    if (!file) return 0;
    while (fscanf(file, "%63s %lld", key, &number) == 2)
        if (!strcmp(key, wanted)) { *value = number; found = 1; }
    fclose(file);
    return found;
}

static long long get(const char *key, long long otherwise) {
    long long value;
    return find(key, &value) ? value : otherwise;
}

static long long of(gpu_t *gpu, const char *key, long long otherwise) {
    char indexed[64];
    long long value;
    snprintf(indexed, sizeof indexed, "%s.%d", key, gpu->index);
    return find(indexed, &value) ? value : get(key, otherwise);
}

static int reach(gpu_t *gpu) {
    while (of(gpu, "blocks", 0)) usleep(20000);
    return of(gpu, "lost", 0) ? GPU_IS_LOST : SUCCESS;
}

#define REACH(gpu) do { int code = reach(gpu); if (code) return code; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; return (int)get("init", SUCCESS); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case 9: return "Driver Not Loaded";
    case TIMEOUT: return "Timeout";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}
int nvmlSystemGetDriverVersion(char *version, unsigned length) { snprintf(version, length, "580.82.07"); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)get("gpus", 1); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t **gpu) {
    if (index >= (unsigned)get("gpus", 1) || index >= 16) return INVALID_ARGUMENT;
    gpus[index].index = (int)index;
    *gpu = &gpus[index];
    return SUCCESS;
}
int nvmlDeviceGetUUID(gpu_t *gpu, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012d", gpu->index);
    return SUCCESS;
}
int nvmlDeviceGetName(gpu_t *gpu, char *name, unsigned length) { REACH(gpu); snprintf(name, length, "NVIDIA H100 80GB HBM3"); return SUCCESS; }
int nvmlDeviceGetSerial(gpu_t *gpu, char *serial, unsigned length) { REACH(gpu); snprintf(serial, length, "16542230%05d", gpu->index); return SUCCESS; }
int nvmlDeviceGetVbiosVersion(gpu_t *gpu, char *version, unsigned length) { REACH(gpu); snprintf(version, length, "96.00.A5.00.01"); return SUCCESS; }

typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} pci_t;
int nvmlDeviceGetPciInfo_v3(gpu_t *gpu, pci_t *pci) {
    REACH(gpu);
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x10 + (unsigned)gpu->index;
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", pci->bus);
    return SUCCESS;
}

typedef struct { unsigned long long total, free, used; } memory_t;
int nvmlDeviceGetMemoryInfo(gpu_t *gpu, memory_t *memory) {
    REACH(gpu);
    memory->total = 80ull << 30; memory->used = 1ull << 29; memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetEnforcedPowerLimit(gpu_t *gpu, unsigned *mw) { REACH(gpu); *mw = 700000; return SUCCESS; }
int nvmlDeviceGetTemperatureThreshold(gpu_t *gpu, int which, unsigned *celsius) {
    REACH(gpu);
    *celsius = (unsigned)of(gpu, "slowdown", 90) + (which == 0 ? 5 : 0);
    return SUCCESS;
}
int nvmlDeviceGetTemperature(gpu_t *gpu, int sensor, unsigned *celsius) {
    (void)sensor; REACH(gpu); *celsius = (unsigned)of(gpu, "temperature", 55); return SUCCESS;
}
int nvmlDeviceGetPowerUsage(gpu_t *gpu, unsigned *mw) {
    REACH(gpu);
    if (of(gpu, "silent_power", 0)) return UNKNOWN;
    *mw = (unsigned)of(gpu, "power_mw", 600000);
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(gpu_t *gpu, int kind, unsigned *mhz) {
    REACH(gpu);
    *mhz = (unsigned)(kind == 2 ? of(gpu, "mem_mhz", 2619) : of(gpu, "sm_mhz", 1755));
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksEventReasons(gpu_t *gpu, unsigned long long *reasons) {
    REACH(gpu); *reasons = (unsigned long long)of(gpu, "reasons", 4); return SUCCESS;
}
typedef struct { unsigned gpu, memory; } utilization_t;
int nvmlDeviceGetUtilizationRates(gpu_t *gpu, utilization_t *rates) {
    REACH(gpu); rates->gpu = (unsigned)of(gpu, "util", 100); rates->memory = 40; return SUCCESS;
}
int nvmlDeviceGetTotalEccErrors(gpu_t *gpu, int kind, int counter, unsigned long long *count) {
    (void)counter; REACH(gpu);
    *count = (unsigned long long)(kind == 1 ? of(gpu, "ecc_uncorrected", 0) : of(gpu, "ecc_corrected", 0));
    return SUCCESS;
}

#ifdef WITH_VIOLATION
typedef struct { unsigned long long reference, violation; } violation_t;
int nvmlDeviceGetViolationStatus(gpu_t *gpu, int policy, violation_t *time) {
    REACH(gpu);
    time->reference = 0;
    time->violation = (unsigned long long)(policy == 1 ? of(gpu, "thermal_ns", 0) : of(gpu, "power_ns", 0));
    return SUCCESS;
}
#endif

typedef struct { unsigned pid; unsigned long long memory; unsigned instance, compute; } process_t;
int nvmlDeviceGetComputeRunningProcesses_v3(gpu_t *gpu, unsigned *count, process_t *processes) {
    long long pid = of(gpu, "processes", 0);
    REACH(gpu);
    if (!pid) { *count = 0; return SUCCESS; }
    if (*count < 1) { *count = 1; return 7; }
    memset(processes, 0, sizeof *processes);
    processes[0].pid = (unsigned)pid;
    *count = 1;
    return SUCCESS;
}

typedef struct {
    unsigned fieldId, scopeId;
    long long timestamp, latency;
    int valueType, nvmlReturn;
    union { double d; unsigned ui; unsigned long ul; unsigned long long ull; } value;
} field_t;
int nvmlDeviceGetFieldValues(gpu_t *gpu, int count, field_t *fields) {
    REACH(gpu);
    for (int i = 0; i < count; i++) {
        fields[i].nvmlReturn = fields[i].fieldId == 82 ? SUCCESS : NOT_SUPPORTED;
        fields[i].valueType = 1;
        fields[i].value.ui = (unsigned)of(gpu, "memory_temperature", 70);
    }
    return SUCCESS;
}

int nvmlEventSetCreate(void **set) { *set = &delivered; return SUCCESS; }
int nvmlEventSetFree(void *set) { (void)set; return SUCCESS; }
int nvmlDeviceRegisterEvents(gpu_t *gpu, unsigned long long types, void *set) { (void)types; (void)set; REACH(gpu); return SUCCESS; }
typedef struct { gpu_t *device; unsigned long long type, data; unsigned instance, compute; } event_t;
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned timeout_ms) {
    (void)set;
    for (unsigned waited = 0; waited <= timeout_ms; waited += 20) {
        long long xid = get("xid", 0), serial = get("xid_serial", 0);
        if (xid && serial != delivered) {
            delivered = serial;
            memset(event, 0, sizeof *event);
            event->device = &gpus[get("xid_gpu", 0)];
            event->type = 8;
            event->data = (unsigned long long)xid;
            return SUCCESS;
        }
        usleep(20000);
    }
    return TIMEOUT;
}
