/* A second thread, which takes half of the work. A task is a function and the table that it is given.

   It looks for work for some tenths of a millisecond before it sleeps: from one gradient step to the next that is less than
   being woken takes. */

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

enum { LOOKS = 20000 };
static struct {
    pthread_mutex_t lock, use;
    pthread_cond_t woken;
    int started, asleep;
    unsigned asked, done;
    const int64_t *tasks;
    int64_t count;
} helper = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0, 0, 0, 0};

INLINE void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

INLINE unsigned look(const unsigned *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }

static void *help(void *nothing) {
    int before[LIBRARIES];
    use_one_thread(before);
    for (unsigned seen = 0;;) {
        for (int looks = 0; look(&helper.asked) == seen && looks < LOOKS; looks++) pause_briefly();
        if (look(&helper.asked) == seen) {
            pthread_mutex_lock(&helper.lock);
            __atomic_store_n(&helper.asleep, 1, __ATOMIC_SEQ_CST);
            while (look(&helper.asked) == seen) pthread_cond_wait(&helper.woken, &helper.lock);
            __atomic_store_n(&helper.asleep, 0, __ATOMIC_SEQ_CST);
            pthread_mutex_unlock(&helper.lock);
        }
        seen = look(&helper.asked);
        run_all(helper.tasks, helper.count);
        __atomic_store_n(&helper.done, seen, __ATOMIC_SEQ_CST);
    }
    return nothing;
}

/* A forked process has no helper, whatever it was doing. */
static void forget_helper(void) {
    helper.started = helper.asleep = 0;
    helper.asked = helper.done = 0;
    pthread_mutex_init(&helper.lock, 0);
    pthread_mutex_init(&helper.use, 0);
    pthread_cond_init(&helper.woken, 0);
}

static int there_is_help(void) {
    if (!helper.started) {
        static int told = 0;
        pthread_t thread;
        pthread_attr_t detached;
        if (!told) told = !pthread_atfork(0, 0, forget_helper);
        pthread_attr_init(&detached);
        pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
        helper.started = told && !pthread_create(&thread, &detached, help, 0) ? 1 : -1;
        pthread_attr_destroy(&detached);
    }
    return helper.started > 0;
}

/* Both lists of tasks at once, the first by the helper; by one thread where there is none, or it is in use. */
EXPORT void together(const int64_t *first, int64_t firsts, const int64_t *second, int64_t seconds) {
    int before[LIBRARIES];
    use_one_thread(before);
    if (!firsts || pthread_mutex_trylock(&helper.use)) {
        run_all(first, firsts);
        run_all(second, seconds);
    } else {
        if (there_is_help()) {
            helper.tasks = first;
            helper.count = firsts;
            const unsigned asked = __atomic_add_fetch(&helper.asked, 1, __ATOMIC_SEQ_CST);
            if (__atomic_load_n(&helper.asleep, __ATOMIC_SEQ_CST)) {
                pthread_mutex_lock(&helper.lock);
                pthread_cond_signal(&helper.woken);
                pthread_mutex_unlock(&helper.lock);
            }
            run_all(second, seconds);
            for (int looks = 0; look(&helper.done) != asked; looks++) {
                if (looks < 10 * LOOKS) pause_briefly();
                else sched_yield();
            }
        } else {
            run_all(first, firsts);
            run_all(second, seconds);
        }
        pthread_mutex_unlock(&helper.use);
    }
    use_as_many_threads_as(before);
}
#else
EXPORT void together(const int64_t *first, int64_t firsts, const int64_t *second, int64_t seconds) {
    int before[LIBRARIES];
    use_one_thread(before);
    run_all(first, firsts);
    run_all(second, seconds);
    use_as_many_threads_as(before);
}
#endif
