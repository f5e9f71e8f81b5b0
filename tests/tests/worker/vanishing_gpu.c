// A Vulkan layer that plays a GPU which goes away: as soon as the file named by VANISHED exists, whatever is given to the GPU
// or waited for is answered as by a driver whose device is lost. Vulkan's own headers are not needed: what a layer sees of
// its types is written out here, as the loader's interface (version 2) has them.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICE_LOST (-4)
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

#define OWN(name) {#name, (Function)lost_##name}
static const struct {
    const char *name;
    Function function;
} lost[] = {
    OWN(vkQueueSubmit), OWN(vkQueueSubmit2), OWN(vkQueueSubmit2KHR), OWN(vkWaitForFences), OWN(vkGetFenceStatus),
    OWN(vkWaitSemaphores), OWN(vkWaitSemaphoresKHR), OWN(vkGetSemaphoreCounterValue), OWN(vkGetSemaphoreCounterValueKHR),
};

static Function device_lookup(void *device, const char *name) {
    Function theirs = next_device_lookup ? next_device_lookup(device, name) : NULL;
    for (size_t i = 0; theirs && i < sizeof lost / sizeof *lost; i++)
        if (strcmp(name, lost[i].name) == 0) return lost[i].function;
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
