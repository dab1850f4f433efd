/* A twin of NVML for tests: what the real pynvml loads as libnvidia-ml.so.1, driven by a scenario file.
 *
 * OVERPROOF_NVML_SCENARIO names a file of lines "key value [since_s [rate_per_s]]". It is looked at again whenever it
 * changes, so that a test can rewrite it while the driver is in use; a line with since_s holds from that many seconds
 * after nvmlInit, and its value grows by rate_per_s from then on. The last line that holds wins. A key without an
 * index holds for every GPU, "key.N" for GPU N alone. In a text ("name", "driver", "vbios" …) an underscore stands
 * for a space.
 *
 *   driver 570.133.20   the driver's version; from its age follows which fields it knows
 *   gpus 8              how many GPUs there are
 *   name NVIDIA_H200    and likewise vbios inforom serial arch memory_mib
 *   temperature.1 91    and likewise power_mw limit_mw default_limit_mw sm_mhz sm_mhz_max mem_mhz mem_mhz_max reasons
 *                       util processes (a pid) memory_temperature slowdown shutdown margin energy_mj mig persistence
 *   ecc_uncorrected     and likewise ecc_corrected ecc_mode sram_uncorrected sram_threshold sram_aggregate
 *   thermal_ns          and likewise power_ns board_ns reliability_ns sw_thermal_ns hw_thermal_ns power_brake_ns
 *   clock_fields 251    where the counters of clocks' event reasons lie: 251 or 269, by default after the driver
 *   remap_corrected     and likewise remap_uncorrected remap_pending remap_failure rows_max rows_none rows_low
 *   pcie_gen pcie_width and pcie_gen_max pcie_width_max pcie_replay pcie_fatal pcie_nonfatal pcie_correctable
 *   nvlinks 18          how many there are; nvlink_down a bit mask of those that are inactive;
 *                       nvlink_replay nvlink_recovery nvlink_crc count on link 0
 *   fabric 3            its state, fabric_health its mask; 0: there is no fabric
 *   recovery_action 1   what the driver itself recommends
 *   unopened.0 15       GPU 0 is counted, and asking for its handle answers with this code
 *   lost.0 1            every call about GPU 0 answers GPU_IS_LOST
 *   blocks.0 1          every call about GPU 0 does not return for as long as this stays
 *   deny_ecc.0 3        the call answers with this code: deny_ecc deny_power deny_remap
 *                       deny_pcie deny_nvlink deny_events deny_sram deny_fabric
 *   inforom_corrupt.0 1 its checksums are wrong; deny_inforom.0 14 its version answers with this code
 *   event 0x2 / event_gpu 1  deliver this event once, if registered; again when event_serial changes
 *   events 0x1f         which events the driver supports, by default after its age
 *   init 9              what nvmlInitWithFlags returns
 *   xid 79 / xid_gpu 1  deliver this XID once; it counts as delivered until xid_serial changes
 *   silent_power.0 1    the power sensor of GPU 0 answers UNKNOWN
 *
 * A symbol that a driver lacks is renamed on the command line of the compiler: -DnvmlDeviceGetFoo=absent_Foo.
 * Built without -DWITH_VIOLATION it lacks nvmlDeviceGetViolationStatus, as a driver may.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, TIMEOUT = 10, GPU_IS_LOST = 15, UNKNOWN = 999 };
enum { GPUS = 16, LINES = 1024, KEY = 40, TEXT = 80 };

typedef long long number_t;
typedef unsigned long long big_t;
typedef struct { int index; } gpu_t;
typedef struct { char key[KEY], text[TEXT]; number_t value; double since, rate; } line_t;

static gpu_t gpus[GPUS];
static number_t delivered = -1, delivered_other = -1;
static big_t registered[GPUS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static line_t lines[LINES];
static int count;
static struct stat seen;
static double looked_at = -1, started_at = -1;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void load(const char *path) {
    FILE *file = fopen(path, "r");
    char row[256];
    count = 0;
    if (!file) return;
    while (count < LINES && fgets(row, sizeof row, file)) {
        line_t *line = &lines[count];
        memset(line, 0, sizeof *line);
        if (sscanf(row, "%39s %79s %lf %lf", line->key, line->text, &line->since, &line->rate) < 2) continue;
        line->value = strtoll(line->text, NULL, 0);
        count++;
    }
    fclose(file);
}

/* Reads the scenario again when it is another one than before; asks for that at most every 5 ms. */
static void refresh(double at) {
    const char *path = getenv("OVERPROOF_NVML_SCENARIO");
    struct stat found;
    if (!path || (looked_at >= 0 && at - looked_at < 0.005)) return;
    looked_at = at;
    if (stat(path, &found)) { count = 0; return; }
    if (found.st_ino == seen.st_ino && found.st_size == seen.st_size && found.st_mtim.tv_nsec == seen.st_mtim.tv_nsec
        && found.st_mtim.tv_sec == seen.st_mtim.tv_sec) return;
    seen = found;
    load(path);
}

static int find(const char *wanted, const char *indexed, number_t *value, char *text) {
    int own = 0, found = 0;
    double at = now();
    pthread_mutex_lock(&lock);
    if (started_at < 0) started_at = at;
    refresh(at);
    for (int i = 0; i < count; i++) {
        line_t *line = &lines[i];
        int is_own = indexed && !strcmp(line->key, indexed);
        if (!is_own && (own || strcmp(line->key, wanted))) continue;
        if (at - started_at < line->since) continue;
        if (value) *value = line->value + (number_t)(line->rate * (at - started_at - line->since));
        if (text) strcpy(text, line->text);
        found = 1;
        own |= is_own;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static number_t get(const char *key, number_t otherwise) {
    number_t value;
    return find(key, NULL, &value, NULL) ? value : otherwise;
}

static number_t of(gpu_t *gpu, const char *key, number_t otherwise) {
    char indexed[KEY + 8];
    number_t value;
    snprintf(indexed, sizeof indexed, "%s.%d", key, gpu->index);
    return find(key, indexed, &value, NULL) ? value : otherwise;
}

static void text_of(gpu_t *gpu, const char *key, const char *otherwise, char *out, unsigned length) {
    char indexed[KEY + 8], text[TEXT];
    snprintf(indexed, sizeof indexed, "%s.%d", key, gpu ? gpu->index : -1);
    snprintf(out, length, "%s", find(key, indexed, NULL, text) ? text : otherwise);
    for (char *c = out; *c; c++) if (*c == '_') *c = ' ';
}

static int driver_major(void) {
    char version[TEXT];
    text_of(NULL, "driver", "580.82.07", version, sizeof version);
    return atoi(version);
}

static int reach(gpu_t *gpu) {
    while (of(gpu, "blocks", 0)) usleep(20000);
    return of(gpu, "lost", 0) ? GPU_IS_LOST : SUCCESS;
}

#define REACH(gpu) do { int code_ = reach(gpu); if (code_) return code_; } while (0)
#define DENY(gpu, key) do { int code_ = (int)of(gpu, key, 0); if (code_) return code_; } while (0)
#define READING(function, key, otherwise) \
    int function(gpu_t *gpu, unsigned *value) { REACH(gpu); *value = (unsigned)of(gpu, key, otherwise); return SUCCESS; }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return (int)get("init", SUCCESS); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case TIMEOUT: return "Timeout";
    case 14: return "infoROM is corrupted";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}
int nvmlSystemGetDriverVersion(char *version, unsigned length) { text_of(NULL, "driver", "580.82.07", version, length); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *number) { *number = (unsigned)get("gpus", 1); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t **gpu) {
    if (index >= (unsigned)get("gpus", 1) || index >= GPUS) return INVALID_ARGUMENT;
    gpus[index].index = (int)index;
    *gpu = &gpus[index];
    return (int)of(*gpu, "unopened", SUCCESS);
}
int nvmlDeviceGetUUID(gpu_t *gpu, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012d", gpu->index);
    return SUCCESS;
}
int nvmlDeviceGetName(gpu_t *gpu, char *name, unsigned length) { REACH(gpu); text_of(gpu, "name", "NVIDIA H100 80GB HBM3", name, length); return SUCCESS; }
int nvmlDeviceGetSerial(gpu_t *gpu, char *serial, unsigned length) { REACH(gpu); snprintf(serial, length, "16542230%05d", gpu->index); return SUCCESS; }
int nvmlDeviceGetVbiosVersion(gpu_t *gpu, char *version, unsigned length) { REACH(gpu); text_of(gpu, "vbios", "96.00.A5.00.01", version, length); return SUCCESS; }
int nvmlDeviceGetInforomImageVersion(gpu_t *gpu, char *version, unsigned length) { REACH(gpu); DENY(gpu, "deny_inforom"); text_of(gpu, "inforom", "G520.0200.00.05", version, length); return SUCCESS; }
int nvmlDeviceValidateInforom(gpu_t *gpu) { REACH(gpu); return of(gpu, "inforom_corrupt", 0) ? 14 : SUCCESS; }
READING(nvmlDeviceGetArchitecture, "arch", 9)
READING(nvmlDeviceGetPersistenceMode, "persistence", 1)
READING(nvmlDeviceGetPowerManagementDefaultLimit, "default_limit_mw", 700000)
READING(nvmlDeviceGetEnforcedPowerLimit, "limit_mw", of(gpu, "default_limit_mw", 700000))
READING(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_gen", of(gpu, "pcie_gen_max", 5))
READING(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_gen_max", 5)
READING(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width", of(gpu, "pcie_width_max", 16))
READING(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max", 16)
int nvmlDeviceGetPcieReplayCounter(gpu_t *gpu, unsigned *value) {
    REACH(gpu); DENY(gpu, "deny_pcie"); *value = (unsigned)of(gpu, "pcie_replay", 0); return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(gpu_t *gpu, big_t *mj) {
    REACH(gpu); *mj = (big_t)of(gpu, "energy_mj", (number_t)(now() * 600000)); return SUCCESS;
}
int nvmlDeviceGetMigMode(gpu_t *gpu, unsigned *current, unsigned *pending) {
    REACH(gpu); *current = *pending = (unsigned)of(gpu, "mig", 0); return SUCCESS;
}
int nvmlDeviceGetEccMode(gpu_t *gpu, unsigned *current, unsigned *pending) {
    REACH(gpu); DENY(gpu, "deny_ecc"); *current = *pending = (unsigned)of(gpu, "ecc_mode", 1); return SUCCESS;
}

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
    memory->total = (big_t)of(gpu, "memory_mib", 81920) << 20;
    memory->used = (big_t)of(gpu, "memory_used_mib", 512) << 20;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetTemperatureThreshold(gpu_t *gpu, int which, unsigned *celsius) {
    unsigned slowdown = (unsigned)of(gpu, "slowdown", 90);
    REACH(gpu);
    if (which > 3) return NOT_SUPPORTED;
    *celsius = which == 0 ? slowdown + 5 : which == 1 ? slowdown : which == 2 ? 95 : slowdown - 3;
    return SUCCESS;
}
int nvmlDeviceGetTemperature(gpu_t *gpu, int sensor, unsigned *celsius) {
    (void)sensor; REACH(gpu); *celsius = (unsigned)of(gpu, "temperature", 55); return SUCCESS;
}
typedef struct { unsigned version; int celsius; } margin_t;
int nvmlDeviceGetMarginTemperature(gpu_t *gpu, margin_t *margin) {
    REACH(gpu); margin->celsius = (int)of(gpu, "margin", 30); return SUCCESS;
}
static unsigned power_mw(gpu_t *gpu) { return (unsigned)of(gpu, "power_mw", of(gpu, "default_limit_mw", 700000) * 97 / 100); }
int nvmlDeviceGetPowerUsage(gpu_t *gpu, unsigned *mw) {
    REACH(gpu);
    if (of(gpu, "silent_power", 0)) return UNKNOWN;
    DENY(gpu, "deny_power");
    *mw = power_mw(gpu);
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(gpu_t *gpu, int kind, unsigned *mhz) {
    REACH(gpu);
    *mhz = (unsigned)(kind == 2 ? of(gpu, "mem_mhz", of(gpu, "mem_mhz_max", 2619)) : of(gpu, "sm_mhz", 1755));
    return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(gpu_t *gpu, int kind, unsigned *mhz) {
    REACH(gpu);
    *mhz = (unsigned)(kind == 2 ? of(gpu, "mem_mhz_max", 2619) : of(gpu, "sm_mhz_max", 1980));
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksEventReasons(gpu_t *gpu, unsigned long long *reasons) {
    REACH(gpu); *reasons = (unsigned long long)of(gpu, "reasons", 4); return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(gpu_t *gpu, unsigned long long *reasons) {
    REACH(gpu); *reasons = (unsigned long long)of(gpu, "reasons", 4); return SUCCESS;
}
typedef struct { unsigned gpu, memory; } utilization_t;
int nvmlDeviceGetUtilizationRates(gpu_t *gpu, utilization_t *rates) {
    REACH(gpu); rates->gpu = (unsigned)of(gpu, "util", 100); rates->memory = 40; return SUCCESS;
}
int nvmlDeviceGetTotalEccErrors(gpu_t *gpu, int kind, int counter, unsigned long long *number) {
    (void)counter; REACH(gpu); DENY(gpu, "deny_ecc");
    *number = (unsigned long long)(kind == 1 ? of(gpu, "ecc_uncorrected", 0) : of(gpu, "ecc_corrected", 0));
    return SUCCESS;
}
int nvmlDeviceGetMemoryErrorCounter(gpu_t *gpu, int kind, int counter, int location, big_t *number) {
    (void)counter; REACH(gpu); DENY(gpu, "deny_ecc");
    if (location != 2 && location != 7) return NOT_SUPPORTED;
    if (location == 7) *number = kind == 1 ? (big_t)of(gpu, "sram_uncorrected", 0) : 0;
    else *number = (big_t)(kind == 1 ? of(gpu, "ecc_uncorrected", 0) : of(gpu, "ecc_corrected", 0));
    return SUCCESS;
}
typedef struct {
    unsigned version;
    big_t aggregateUncParity, aggregateUncSecDed, aggregateCor, volatileUncParity, volatileUncSecDed, volatileCor;
    big_t bucketL2, bucketSm, bucketPcie, bucketMcu, bucketOther;
    unsigned bThresholdExceeded;
} sram_t;
int nvmlDeviceGetSramEccErrorStatus(gpu_t *gpu, sram_t *sram) {
    REACH(gpu); DENY(gpu, "deny_sram");
    sram->aggregateUncParity = (big_t)(of(gpu, "sram_aggregate", 0) + of(gpu, "sram_uncorrected", 0));
    sram->volatileUncParity = (big_t)of(gpu, "sram_uncorrected", 0);
    sram->bucketL2 = sram->aggregateUncParity;
    sram->bThresholdExceeded = (unsigned)of(gpu, "sram_threshold", 0);
    return SUCCESS;
}
int nvmlDeviceGetRemappedRows(gpu_t *gpu, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failure) {
    REACH(gpu); DENY(gpu, "deny_remap");
    *corrected = (unsigned)of(gpu, "remap_corrected", 0);
    *uncorrected = (unsigned)of(gpu, "remap_uncorrected", 0);
    *pending = (unsigned)of(gpu, "remap_pending", 0);
    *failure = (unsigned)of(gpu, "remap_failure", 0);
    return SUCCESS;
}
typedef struct { unsigned max, high, partial, low, none; } rows_t;
int nvmlDeviceGetRowRemapperHistogram(gpu_t *gpu, rows_t *rows) {
    REACH(gpu); DENY(gpu, "deny_remap");
    rows->low = (unsigned)of(gpu, "rows_low", 0);
    rows->none = (unsigned)of(gpu, "rows_none", 0);
    rows->high = rows->partial = 0;
    rows->max = (unsigned)of(gpu, "rows_max", 640) - rows->low - rows->none;
    return SUCCESS;
}

#ifdef WITH_VIOLATION
typedef struct { unsigned long long reference, violation; } violation_t;
int nvmlDeviceGetViolationStatus(gpu_t *gpu, int policy, violation_t *time) {
    REACH(gpu);
    time->reference = 0;
    time->violation = (big_t)(policy == 0 ? of(gpu, "power_ns", 0) : policy == 1 ? of(gpu, "thermal_ns", 0)
        : policy == 3 ? of(gpu, "board_ns", 0) : policy == 5 ? of(gpu, "reliability_ns", 0) : 0);
    return SUCCESS;
}
#endif

typedef struct { unsigned pid; unsigned long long memory; unsigned instance, compute; } process_t;
int nvmlDeviceGetComputeRunningProcesses_v3(gpu_t *gpu, unsigned *number, process_t *processes) {
    number_t pid = of(gpu, "processes", 0);
    REACH(gpu);
    if (!pid) { *number = 0; return SUCCESS; }
    if (*number < 1) { *number = 1; return 7; }
    memset(processes, 0, sizeof *processes);
    processes[0].pid = (unsigned)pid;
    *number = 1;
    return SUCCESS;
}

int nvmlDeviceGetNvLinkState(gpu_t *gpu, unsigned link, unsigned *is_active) {
    REACH(gpu); DENY(gpu, "deny_nvlink");
    if (link >= (unsigned)of(gpu, "nvlinks", 18)) return of(gpu, "nvlinks", 18) ? INVALID_ARGUMENT : NOT_SUPPORTED;
    *is_active = !(of(gpu, "nvlink_down", 0) >> link & 1);
    return SUCCESS;
}
int nvmlDeviceGetNvLinkErrorCounter(gpu_t *gpu, unsigned link, int counter, big_t *number) {
    REACH(gpu); DENY(gpu, "deny_nvlink");
    if (link >= (unsigned)of(gpu, "nvlinks", 18)) return INVALID_ARGUMENT;
    if (of(gpu, "arch", 9) >= 10) return NOT_SUPPORTED; /* its links count by other names */
    *number = 0;
    if (link == 0)
        *number = (big_t)(counter == 0 ? of(gpu, "nvlink_replay", 0) : counter == 1 ? of(gpu, "nvlink_recovery", 0)
            : counter <= 3 ? of(gpu, "nvlink_crc", 0) : 0);
    return SUCCESS;
}
typedef struct { unsigned version; unsigned char cluster[16]; int status; unsigned clique; unsigned char state; unsigned health; } fabric_t;
int nvmlDeviceGetGpuFabricInfoV(gpu_t *gpu, fabric_t *fabric) {
    REACH(gpu); DENY(gpu, "deny_fabric");
    if (!of(gpu, "fabric", 3)) return NOT_SUPPORTED;
    fabric->status = SUCCESS;
    fabric->state = (unsigned char)of(gpu, "fabric", 3);
    fabric->health = (unsigned)of(gpu, "fabric_health", 0x1aa); /* every fault denied, configuration correct */
    return SUCCESS;
}

typedef struct {
    unsigned fieldId, scopeId;
    long long timestamp, latency;
    int valueType, nvmlReturn;
    union { double d; unsigned ui; unsigned long ul; unsigned long long ull; } value;
} field_t;

static int answer(field_t *field, number_t value, int type) {
    field->valueType = type;
    if (type == 1) field->value.ui = (unsigned)value;
    else field->value.ull = (big_t)value;
    return SUCCESS;
}

/* One field. What an older driver does not know it calls an invalid argument. */
static int read_field(gpu_t *gpu, field_t *field, int driver) {
    unsigned id = field->fieldId;
    unsigned known = driver < 550 ? 200 : driver < 565 ? 229 : driver < 575 ? 254 : 308;
    number_t clocks = of(gpu, "clock_fields", driver < 575 ? 251 : 269);
    if (id >= known) return INVALID_ARGUMENT;
    if (id >= (unsigned)clocks && id < (unsigned)clocks + 3 && driver >= 565)
        return answer(field, of(gpu, id == clocks ? "sw_thermal_ns" : id == clocks + 1 ? "hw_thermal_ns" : "power_brake_ns", 0), 3);
    if (id >= 201 && id <= 222 && of(gpu, "arch", 9) < 10) return NOT_SUPPORTED;
    switch (id) {
    case 74: return answer(field, of(gpu, "power_ns", 0), 3);
    case 75: return answer(field, of(gpu, "thermal_ns", 0), 3);
    case 77: return answer(field, of(gpu, "board_ns", 0), 3);
    case 79: return answer(field, of(gpu, "reliability_ns", 0), 3);
    case 82: return answer(field, of(gpu, "memory_temperature", 70), 1);
    case 94: return of(gpu, "deny_pcie", 0) ? (int)of(gpu, "deny_pcie", 0) : answer(field, of(gpu, "pcie_replay", 0), 1);
    case 95: case 169: case 174: case 175: case 176: case 177: case 178: case 181: case 182: case 183:
        return of(gpu, "deny_pcie", 0) ? (int)of(gpu, "deny_pcie", 0) : answer(field, 0, 1);
    case 161: return answer(field, field->scopeId == 0 ? of(gpu, "nvlink_replay", 0) : 0, 3);
    case 162: return answer(field, field->scopeId == 0 ? of(gpu, "nvlink_recovery", 0) : 0, 3);
    case 163: return answer(field, field->scopeId == 0 ? of(gpu, "nvlink_crc", 0) : 0, 3);
    case 164: return answer(field, of(gpu, "nvlink_mbps", 26562), 1);
    case 173: return answer(field, of(gpu, "pcie_correctable", 0), 1);
    case 179: return answer(field, of(gpu, "pcie_nonfatal", 0), 1);
    case 180: return answer(field, of(gpu, "pcie_fatal", 0), 1);
    case 185: case 186: return of(gpu, "silent_power", 0) ? UNKNOWN : answer(field, power_mw(gpu), 1);
    case 194: return answer(field, of(gpu, "tlimit_slowdown", 0), 1);
    case 214: return answer(field, field->scopeId == 0 ? of(gpu, "nvlink_recovery", 0) : 0, 3);
    case 219: case 221: return answer(field, field->scopeId == 0 ? of(gpu, "nvlink_crc", 0) : 0, 3);
    case 213: case 215: return answer(field, 0, 3);
    case 230: return answer(field, of(gpu, "recovery_action", 0), 1);
    case 251: case 252: case 253: return answer(field, id == 252 ? 1 : 0, 1); /* power smoothing */
    default: return NOT_SUPPORTED;
    }
}

int nvmlDeviceGetFieldValues(gpu_t *gpu, int number, field_t *fields) {
    REACH(gpu);
    for (int i = 0, driver = driver_major(); i < number; i++)
        fields[i].nvmlReturn = read_field(gpu, &fields[i], driver);
    return SUCCESS;
}

int nvmlEventSetCreate(void **set) { *set = &delivered; return SUCCESS; }
int nvmlEventSetFree(void *set) { (void)set; return SUCCESS; }
static big_t supported_events(gpu_t *gpu) {
    int driver = driver_major();
    return (big_t)of(gpu, "events", driver < 560 ? 0x1f : driver < 570 ? 0xf1f : 0xff1f);
}
int nvmlDeviceGetSupportedEventTypes(gpu_t *gpu, unsigned long long *types) {
    REACH(gpu); *types = supported_events(gpu); return SUCCESS;
}
int nvmlDeviceRegisterEvents(gpu_t *gpu, unsigned long long types, void *set) {
    (void)set; REACH(gpu); DENY(gpu, "deny_events");
    if (types & ~supported_events(gpu)) return NOT_SUPPORTED;
    registered[gpu->index] = types;
    return SUCCESS;
}
typedef struct { gpu_t *device; unsigned long long type, data; unsigned instance, compute; } event_t;
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned timeout_ms) {
    (void)set;
    for (unsigned waited = 0; waited <= timeout_ms; waited += 20) {
        number_t xid = get("xid", 0), serial = get("xid_serial", 0);
        if (xid && serial != delivered) {
            delivered = serial;
            memset(event, 0, sizeof *event);
            event->device = &gpus[get("xid_gpu", 0)];
            event->type = 8;
            event->data = (unsigned long long)xid;
            return SUCCESS;
        }
        number_t other = get("event", 0), other_serial = get("event_serial", 0), on = get("event_gpu", 0);
        if (other && other_serial != delivered_other && registered[on] & (big_t)other) {
            delivered_other = other_serial;
            memset(event, 0, sizeof *event);
            event->device = &gpus[on];
            event->type = (unsigned long long)other;
            return SUCCESS;
        }
        usleep(20000);
    }
    return TIMEOUT;
}
