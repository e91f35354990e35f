/*
 * For LD_PRELOAD: lets an allocation of a process fail, so that a test sees
 * what follows.  The file that LLM_SHORTAGE names holds two numbers that a
 * test may write at any time: which allocation from now on fails, 0 for none,
 * and whether those behind it do, too.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>


typedef struct {
    _Atomic int64_t left;
    _Atomic int64_t lasts;
} shortage_t;


/* the allocator, as glibc calls it to itself */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);


static shortage_t *shortage;


__attribute__((constructor)) static void
shortage_init(void)
{
    const char *name = getenv("LLM_SHORTAGE");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;

    if (fd == -1) {
        return;
    }

    void *p = mmap(NULL, sizeof(shortage_t), PROT_READ | PROT_WRITE, MAP_SHARED,
        fd, 0);

    shortage = p == MAP_FAILED ? NULL : p;
    (void) close(fd);
}


static int
shortage_is_here(void)
{
    if (shortage == NULL) {
        return 0;
    }

    int64_t left = atomic_load(&shortage->left);

    do {
        if (left == 0) {
            return 0;
        }
    } while (!atomic_compare_exchange_weak(&shortage->left, &left,
        left == 1 && atomic_load(&shortage->lasts) ? 1 : left - 1));

    if (left > 1) {
        return 0;
    }

    errno = ENOMEM;

    return 1;
}


void *
malloc(size_t size)
{
    return shortage_is_here() ? NULL : __libc_malloc(size);
}


void *
calloc(size_t n, size_t size)
{
    return shortage_is_here() ? NULL : __libc_calloc(n, size);
}


void *
realloc(void *p, size_t size)
{
    return shortage_is_here() ? NULL : __libc_realloc(p, size);
}


int
posix_memalign(void **p, size_t alignment, size_t size)
{
    if (shortage_is_here()) {
        return ENOMEM;
    }

    *p = __libc_memalign(alignment, size);

    return *p == NULL ? ENOMEM : 0;
}


/* nginx's pools, as the module under test has to call them */

#define SHORTAGE(name, parameters, arguments)                    \
    void *ngx_##name parameters;                                 \
    void *Ngx_##name parameters;                                 \
                                                                 \
    void *Ngx_##name parameters                                  \
    {                                                            \
        return shortage_is_here() ? NULL : ngx_##name arguments; \
    }

SHORTAGE(palloc, (void *pool, size_t size), (pool, size))
SHORTAGE(pnalloc, (void *pool, size_t size), (pool, size))
SHORTAGE(pcalloc, (void *pool, size_t size), (pool, size))
SHORTAGE(pstrdup, (void *pool, void *s), (pool, s))
SHORTAGE(array_create, (void *pool, uintptr_t n, size_t size), (pool, n, size))
SHORTAGE(array_push, (void *array), (array))
SHORTAGE(array_push_n, (void *array, uintptr_t n), (array, n))
SHORTAGE(list_push, (void *list), (list))
SHORTAGE(alloc_chain_link, (void *pool), (pool))
SHORTAGE(create_temp_buf, (void *pool, size_t size), (pool, size))
SHORTAGE(pool_cleanup_add, (void *pool, size_t size), (pool, size))
