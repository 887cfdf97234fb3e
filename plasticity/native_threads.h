/* Other threads, which take part of the work. A task is a function and the table that it is given.

   They look for work for two milliseconds before they sleep: the next gradient step, or step of an environment, mostly
   comes sooner, and being woken takes a twentieth of that. */

typedef void (*task_t)(const int64_t *);
typedef int (*set_threads_t)(int);
enum { LIBRARIES = 2 }; /* that multiply matrices: the one for most, and torch's own */
static set_threads_t set_threads[LIBRARIES]; /* or 0; returns how many threads it were */

EXPORT void take_thread_setter(int64_t library, const void *address) {
    set_threads[library] = (set_threads_t)address;
}

static void use_one_thread(int *before) {
    for (int i = 0; i < LIBRARIES; i++) before[i] = set_threads[i] ? set_threads[i](1) : 0;
}

static void use_as_many_threads_as(const int *before) {
    for (int i = LIBRARIES - 1; i >= 0; i--) /* the other way round: both may be one */
        if (set_threads[i]) set_threads[i](before[i]);
}

static void run_all(const int64_t *tasks, int64_t count) {
    for (const int64_t *t = tasks; t < tasks + 2 * count; t += 2) ((task_t)t[0])((const int64_t *)t[1]);
}

#ifndef _WIN32
#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { PATIENCE = 2000000, LOOKS = 500, MOST = 63 }; /* nanoseconds; looks from one to the next at the clock */
typedef struct {
    pthread_cond_t woken;
    int asleep;
    unsigned asked, done, arithmetic; /* the last that of whoever asks */
    const int64_t *tasks;
    int64_t count;
    char apart[128]; /* from the next one's, so that looking at one does not slow the other */
} helper_t;
static helper_t helpers[MOST];
static int started;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, use = PTHREAD_MUTEX_INITIALIZER;

INLINE void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

INLINE int64_t clock_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * (int64_t)1000000000 + now.tv_nsec;
}

INLINE unsigned look(const unsigned *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }

static void *help(void *own) {
    helper_t *self = own;
    int before[LIBRARIES];
    use_one_thread(before);
    for (unsigned seen = 0;;) {
        const int64_t until = clock_now() + PATIENCE;
        do
            for (int looks = 0; look(&self->asked) == seen && looks < LOOKS; looks++) pause_briefly();
        while (look(&self->asked) == seen && clock_now() < until);
        if (look(&self->asked) == seen) {
            pthread_mutex_lock(&lock);
            __atomic_store_n(&self->asleep, 1, __ATOMIC_SEQ_CST);
            while (look(&self->asked) == seen) pthread_cond_wait(&self->woken, &lock);
            __atomic_store_n(&self->asleep, 0, __ATOMIC_SEQ_CST);
            pthread_mutex_unlock(&lock);
        }
        seen = look(&self->asked);
        set_arithmetic(self->arithmetic);
        run_all(self->tasks, self->count);
        __atomic_store_n(&self->done, seen, __ATOMIC_SEQ_CST);
    }
    return 0;
}

/* A forked process has no helpers, whatever they were doing. */
static void forget_helpers(void) {
    memset(helpers, 0, sizeof helpers);
    started = 0;
    pthread_mutex_init(&lock, 0);
    pthread_mutex_init(&use, 0);
}

/* So many helpers, or as many as there can be; returns how many. */
static int have(int64_t wanted) {
    static int told = 0;
    pthread_attr_t detached;
    if (!told) told = !pthread_atfork(0, 0, forget_helpers);
    if (started >= wanted || !told) return started < wanted ? started : (int)wanted;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    for (pthread_t thread; started < wanted && started < MOST; started++) {
        pthread_cond_init(&helpers[started].woken, 0);
        if (pthread_create(&thread, &detached, help, &helpers[started])) break;
    }
    pthread_attr_destroy(&detached);
    return started;
}

static void ask(helper_t *helper, const int64_t *tasks, int64_t count) {
    helper->tasks = tasks;
    helper->count = count;
    helper->arithmetic = arithmetic();
    __atomic_add_fetch(&helper->asked, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&helper->asleep, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&lock);
        pthread_cond_signal(&helper->woken);
        pthread_mutex_unlock(&lock);
    }
}

static void wait_for(helper_t *helper) {
    for (int looks = 0; look(&helper->done) != helper->asked; looks++) {
        if (looks < 200000) pause_briefly();
        else sched_yield();
    }
}

/* Both lists of tasks at once, the first by a helper; by one thread where there is none, or it is in use, or it sleeps
   and is not to be woken. */
EXPORT void together(const int64_t *first, int64_t firsts, const int64_t *second, int64_t seconds, int wake) {
    int before[LIBRARIES];
    use_one_thread(before);
    const int called = firsts && (wake || (started && !__atomic_load_n(&helpers->asleep, __ATOMIC_SEQ_CST)));
    const int apart = called && !pthread_mutex_trylock(&use), helped = apart && have(1);
    if (helped) ask(helpers, first, firsts);
    else run_all(first, firsts);
    run_all(second, seconds);
    if (helped) wait_for(helpers);
    if (apart) pthread_mutex_unlock(&use);
    use_as_many_threads_as(before);
}

/* One list of tasks by several threads at once, which share out among themselves what there is to do; by this one alone
   where the helpers are in use. */
EXPORT void share(const int64_t *tasks, int64_t count, int64_t threads) {
    const int apart = threads > 1 && !pthread_mutex_trylock(&use), others = apart ? have(threads - 1) : 0;
    for (int i = 0; i < others; i++) ask(&helpers[i], tasks, count);
    run_all(tasks, count);
    for (int i = 0; i < others; i++) wait_for(&helpers[i]);
    if (apart) pthread_mutex_unlock(&use);
}
#else
EXPORT void together(const int64_t *first, int64_t firsts, const int64_t *second, int64_t seconds, int wake) {
    (void)wake;
    int before[LIBRARIES];
    use_one_thread(before);
    run_all(first, firsts);
    run_all(second, seconds);
    use_as_many_threads_as(before);
}

EXPORT void share(const int64_t *tasks, int64_t count, int64_t threads) {
    (void)threads;
    run_all(tasks, count);
}
#endif
