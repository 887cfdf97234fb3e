/* Several of MuJoCo's simulations, by as many threads as call `simulate` with the same table; envs/native_physics.py
   makes it.

   Each thread has simulations that are its own, whose numbers its core still has from the step before. It takes one
   frame of each in turn, and when nothing of its own is left, frames of the others': whole simulations would be pieces
   too large for all threads to end at once.

   What Python's mj_step does, without Python: an error ends a simulation, not the process. MuJoCo calls the handler of
   the thread it happens in, which must not return. */

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>

#ifdef _MSC_VER
#include <intrin.h>
#define EXPORT __declspec(dllexport)
#define OF_THREAD __declspec(thread)
#define LOOK(at) _InterlockedOr64(at, 0)
#define WRITE(at, value) _InterlockedExchange64(at, value)
#define CHANGE(at, from, to) (_InterlockedCompareExchange64(at, to, from) == (from))
#else
#define EXPORT
#define OF_THREAD _Thread_local
#define LOOK(at) __atomic_load_n(at, __ATOMIC_SEQ_CST)
#define WRITE(at, value) __atomic_store_n(at, value, __ATOMIC_SEQ_CST)
#define CHANGE(at, from, to) __sync_bool_compare_and_swap(at, from, to)
#endif

/* The table: how many simulations, by how many threads, which they are, and their rows; MuJoCo's functions. A row: how
   far it is, model, data, frames, and where it goes what an error said. Its state is twice the number of frames that
   are done, and one more while a thread has it. */
enum { COUNT, THREADS, SEATS, ROWS, STEP, FORCES, SET_HANDLER, HANDLER_OF_ALL };
enum { STATE, MODEL, DATA, FRAMES, SAID, COLUMNS };
enum { ERROR_LEVEL = 3, LENGTH = 1024, ROOM = 2048 }; /* mjLOG_ERROR; of a subject; for what an error said */

typedef struct { /* the beginning of mjLogMessage */
    int level, topic;
    char subject[LENGTH];
    const char *body, *function;
} message_t;
typedef void (*handler_t)(const message_t *);
typedef handler_t (*set_handler_t)(handler_t);
typedef handler_t (*handler_of_all_t)(void);
typedef void (*simulate_t)(const void *, void *);

static OF_THREAD jmp_buf way_out;
static OF_THREAD const int64_t *table;
static OF_THREAD char *said;

static void hear(const message_t *message) {
    if (message->level >= ERROR_LEVEL) {
        if (message->function) snprintf(said, ROOM, "%.1000s: %s", message->function, message->subject);
        else snprintf(said, ROOM, "%s", message->subject);
        longjmp(way_out, 1);
    }
    const handler_t for_all = ((handler_of_all_t)table[HANDLER_OF_ALL])();
    if (for_all) for_all(message);
}

/* The next frame; whether there was no error. */
static int simulate_frame(const int64_t *row, int is_last) {
    if (setjmp(way_out)) return 0;
    ((simulate_t)table[STEP])((const void *)row[MODEL], (void *)row[DATA]);
    if (is_last) ((simulate_t)table[FORCES])((const void *)row[MODEL], (void *)row[DATA]);
    return 1;
}

/* The one of these simulations that nobody has and that is the least far, or 0. */
static int64_t *behind(int64_t first, int64_t last, int64_t *state) {
    int64_t *found = 0;
    for (int64_t i = first; i < last; i++) {
        int64_t *row = (int64_t *)table[ROWS] + COLUMNS * i, now = LOOK(&row[STATE]);
        if (now % 2 == 0 && now < 2 * row[FRAMES] && (!found || now < *state)) {
            found = row;
            *state = now;
        }
    }
    return found;
}

/* The number of this thread among those of the table: that which it had before, if it was there. */
static int64_t seat(void) {
    int64_t *seats = (int64_t *)table[SEATS], own = (int64_t)(intptr_t)&table; /* no other thread's is there */
    for (int64_t i = 0; i < table[THREADS]; i++)
        if (LOOK(&seats[i]) == own || CHANGE(&seats[i], 0, own)) return i;
    return 0;
}

EXPORT void simulate(const int64_t *given) {
    table = given;
    const handler_t usual = ((set_handler_t)table[SET_HANDLER])(hear);
    const int64_t number = seat(), count = table[COUNT], threads = table[THREADS];
    const int64_t first = number * count / threads, last = (number + 1) * count / threads;
    for (int64_t *row, state;;) {
        if (!(row = behind(first, last, &state)) && !(row = behind(0, count, &state))) break;
        if (!CHANGE(&row[STATE], state, state + 1)) continue;
        said = (char *)row[SAID];
        WRITE(&row[STATE], simulate_frame(row, state + 2 == 2 * row[FRAMES]) ? state + 2 : 2 * row[FRAMES]);
    }
    ((set_handler_t)table[SET_HANDLER])(usual);
}

/* In the place of MuJoCo's clock: it asks some hundred times a step, for statistics. */
EXPORT double no_time(void) { return 0; }

/* What import would call; this is a plain library, opened by its path. */
EXPORT void *PyInit__native(void) { return 0; }
