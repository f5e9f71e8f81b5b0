// A Vulkan layer that plays a GPU which fails. One that goes away: as soon as the file named by VANISHED exists, whatever is
// given to the GPU or waited for is answered as by a driver whose device is lost. One that is small: of its memory there are
// MEMORY_MAX bytes, and the most that was held at once is kept in the file named by MEMORY_HELD. Vulkan's own headers are not
// needed: what a layer sees of its types is written out here, as the loader's interface (version 2) has them.
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICE_LOST (-4)
#define OUT_OF_DEVICE_MEMORY (-2)
#define LAYER_INSTANCE_CREATE_INFO 47
#define LAYER_DEVICE_CREATE_INFO 48
#define LINK 0

typedef void (*Function)(void);
typedef Function (*Lookup)(void *, const char *);

typedef struct Link {
    struct Link *next;
    Lookup instance_lookup;
    Lookup device_lookup; // in an instance's link: of physical devices
} Link;

typedef struct Info {
    int type;
    const struct Info *next;
    int function;
    Link *link;
} Info;

typedef struct {
    int type;
    const Info *next;
} Head;

typedef struct {
    int type;
    void *next;
    uint32_t version;
    Lookup instance_lookup, device_lookup, physical_device_lookup;
} Negotiation;

static Lookup next_instance_lookup, next_device_lookup;
static void *only_device;

// Takes this layer's link off the chain, so that the next one finds its own.
static Link *take_link(const Head *head, int type) {
    for (const Info *info = head->next; info; info = info->next) {
        if (info->type == type && info->function == LINK) {
            Link *mine = info->link;
            ((Info *)info)->link = mine->next;
            return mine;
        }
    }
    return NULL;
}

static int create_instance(const Head *head, const void *allocator, void **instance) {
    Link *link = take_link(head, LAYER_INSTANCE_CREATE_INFO);
    if (!link) return DEVICE_LOST;
    next_instance_lookup = link->instance_lookup;
    int (*next)(const Head *, const void *, void **) = (void *)next_instance_lookup(NULL, "vkCreateInstance");
    return next(head, allocator, instance);
}

static int create_device(void *physical, const Head *head, const void *allocator, void **device) {
    Link *link = take_link(head, LAYER_DEVICE_CREATE_INFO);
    if (!link) return DEVICE_LOST;
    next_device_lookup = link->device_lookup;
    int (*next)(void *, const Head *, const void *, void **) = (void *)link->instance_lookup(NULL, "vkCreateDevice");
    int made = next(physical, head, allocator, device);
    only_device = *device;
    return made;
}

static int is_gone(void) {
    const char *file = getenv("VANISHED");
    return file && access(file, F_OK) == 0;
}

// A call of the device with up to six arguments, each of which fits a register.
#define LOSES(name)                                                                                       \
    static int lost_##name(void *a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {         \
        static int (*next)(void *, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);                     \
        if (is_gone()) return DEVICE_LOST;                                                                \
        if (!next) next = (void *)next_device_lookup(only_device, #name);                                 \
        return next(a, b, c, d, e, f);                                                                    \
    }
LOSES(vkQueueSubmit)
LOSES(vkQueueSubmit2)
LOSES(vkQueueSubmit2KHR)
LOSES(vkWaitForFences)
LOSES(vkGetFenceStatus)
LOSES(vkWaitSemaphores)
LOSES(vkWaitSemaphoresKHR)
LOSES(vkGetSemaphoreCounterValue)
LOSES(vkGetSemaphoreCounterValueKHR)

typedef struct {
    int type;
    const void *next;
    uint64_t bytes;
} Wanted;

typedef struct Piece {
    struct Piece *next;
    uint64_t memory, bytes;
} Piece;

static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;
static Piece *pieces;
static uint64_t held, most_held;

static int allocate_memory(void *device, const Wanted *wanted, const void *allocator, uint64_t *memory) {
    int (*next)(void *, const Wanted *, const void *, uint64_t *) = (void *)next_device_lookup(only_device, "vkAllocateMemory");
    const char *most = getenv("MEMORY_MAX"), *file = getenv("MEMORY_HELD");
    pthread_mutex_lock(&counting);
    int made = OUT_OF_DEVICE_MEMORY;
    if (!most || held + wanted->bytes <= strtoull(most, NULL, 10)) made = next(device, wanted, allocator, memory);
    Piece *piece = made == 0 ? malloc(sizeof *piece) : NULL;
    if (piece) {
        *piece = (Piece){pieces, *memory, wanted->bytes};
        pieces = piece;
        held += piece->bytes;
    }
    if (file && held > most_held) {
        FILE *to = fopen(file, "w");
        if (to) fprintf(to, "%llu", (unsigned long long)(most_held = held)), fclose(to);
    }
    pthread_mutex_unlock(&counting);
    return made;
}

static void free_memory(void *device, uint64_t memory, const void *allocator) {
    void (*next)(void *, uint64_t, const void *) = (void *)next_device_lookup(only_device, "vkFreeMemory");
    pthread_mutex_lock(&counting);
    for (Piece **at = &pieces; *at; at = &(*at)->next) {
        if ((*at)->memory == memory) {
            Piece *piece = *at;
            held -= piece->bytes;
            *at = piece->next;
            free(piece);
            break;
        }
    }
    pthread_mutex_unlock(&counting);
    next(device, memory, allocator);
}

#define LOST(name) {#name, (Function)lost_##name}
static const struct {
    const char *name;
    Function function;
} own[] = {
    LOST(vkQueueSubmit), LOST(vkQueueSubmit2), LOST(vkQueueSubmit2KHR), LOST(vkWaitForFences), LOST(vkGetFenceStatus),
    LOST(vkWaitSemaphores), LOST(vkWaitSemaphoresKHR), LOST(vkGetSemaphoreCounterValue), LOST(vkGetSemaphoreCounterValueKHR),
    {"vkAllocateMemory", (Function)allocate_memory}, {"vkFreeMemory", (Function)free_memory},
};

static Function device_lookup(void *device, const char *name) {
    Function theirs = next_device_lookup ? next_device_lookup(device, name) : NULL;
    for (size_t i = 0; theirs && i < sizeof own / sizeof *own; i++)
        if (strcmp(name, own[i].name) == 0) return own[i].function;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0) return (Function)device_lookup;
    return theirs;
}

static Function instance_lookup(void *instance, const char *name) {
    if (strcmp(name, "vkCreateInstance") == 0) return (Function)create_instance;
    if (strcmp(name, "vkCreateDevice") == 0) return (Function)create_device;
    if (strcmp(name, "vkGetInstanceProcAddr") == 0) return (Function)instance_lookup;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0) return (Function)device_lookup;
    return next_instance_lookup ? next_instance_lookup(instance, name) : NULL;
}

__attribute__((visibility("default"))) int vkNegotiateLoaderLayerInterfaceVersion(Negotiation *with) {
    with->version = 2;
    with->instance_lookup = instance_lookup;
    with->device_lookup = device_lookup;
    with->physical_device_lookup = NULL;
    return 0;
}
