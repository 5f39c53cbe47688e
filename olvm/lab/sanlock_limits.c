/* For sanlock's daemon in a container, by LD_PRELOAD.

   It raises its limits of locked memory and of real-time priority, and ends when that is forbidden: it takes
   CAP_SYS_RESOURCE, which containers lack. Here it is told that its limits were raised. They were not: its memory may
   be swapped and its threads may wait, which a laboratory can bear and a host that guards data cannot. */
#include <sys/resource.h>

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    (void)resource;
    (void)limit;
    return 0;
}

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
    (void)resource;
    (void)limit;
    return 0;
}
