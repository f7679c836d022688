#include "carriers.h"

#include "python.h"
#include "text.h"

#include <stdlib.h>

const char *const FRAMES = "frames", *const GENERATION = "generation", *const LATE = "late";

/* After a seek, a chunk is computed ahead once this many frames were read: a preview reads fewer. */
enum { FRAMES_OF_A_READER = 4 };

Carriers *new_carriers(const Worker *worker, const VSAPI *vsapi) {
    Carriers *carriers = calloc(1, sizeof *carriers);
    if (!carriers) return NULL;
    carriers->worker = *worker;
    carriers->vsapi = vsapi;
    carriers->owners = 1;
    carriers->chunk_read = carriers->asked = carriers->failed = -1;
    mutex_init(&carriers->lock);
    return carriers;
}

Carriers *share_carriers(Carriers *carriers) {
    mutex_lock(&carriers->lock);
    carriers->owners++;
    mutex_unlock(&carriers->lock);
    return carriers;
}

void release_carriers(Carriers *carriers) {
    mutex_lock(&carriers->lock);
    int last = --carriers->owners == 0;
    mutex_unlock(&carriers->lock);
    if (last) {
        mutex_free(&carriers->lock);
        free(carriers);
    }
}

/* ---- which are held ---- */

/* Puts `frame` in the place of what is held there, which it returns. Under the lock. */
static const VSFrame *swap(Held *held, const VSFrame *frame, int chunk) {
    const VSFrame *old = held->frame;
    *held = (Held){frame, chunk};
    return old;
}

const VSFrame *held_carrier(Carriers *carriers, int chunk) {
    const VSFrame *found = NULL;
    mutex_lock(&carriers->lock);
    if (carriers->current.frame && carriers->current.chunk == chunk) found = carriers->current.frame;
    else if (carriers->next.frame && carriers->next.chunk == chunk) found = carriers->next.frame;
    if (found) found = carriers->vsapi->addFrameRef(found);
    mutex_unlock(&carriers->lock);
    return found;
}

int hold_carrier(Carriers *carriers, const VSFrame *frame, int chunk, int ahead) {
    const VSAPI *vsapi = carriers->vsapi;
    int64_t made_in = vsapi->mapGetInt(vsapi->getFramePropertiesRO(frame), GENERATION, 0, NULL);
    const VSFrame *released = frame, *useless = NULL;
    mutex_lock(&carriers->lock);
    int fresh = made_in == carriers->generation;
    /* After a seek, what was made ahead is of no use. */
    int before = chunk - carriers->chunk_read, wanted = !ahead || (before >= 0 && before <= 2);
    /* A nearer one is needed sooner. */
    if (ahead && carriers->next.frame && carriers->next.chunk == chunk - 1) wanted = 0;
    if (fresh && wanted) released = swap(ahead ? &carriers->next : &carriers->current, frame, chunk);
    int before_next = carriers->next.chunk - chunk;
    /* Two: of requests side by side, one for the chunk before may come last. */
    if (fresh && !ahead && before_next != 1 && before_next != 2) useless = swap(&carriers->next, NULL, 0);
    mutex_unlock(&carriers->lock);
    vsapi->freeFrame(released);
    vsapi->freeFrame(useless);
    return fresh;
}

void let_go_of_carrier(Carriers *carriers, int chunk) {
    const VSFrame *released = NULL;
    mutex_lock(&carriers->lock);
    if (carriers->current.chunk == chunk) released = swap(&carriers->current, NULL, 0);
    mutex_unlock(&carriers->lock);
    carriers->vsapi->freeFrame(released);
}

static int is_fresh(Carriers *carriers, const VSFrame *carrier) {
    const VSMap *props = carriers->vsapi->getFramePropertiesRO(carrier);
    return carriers->vsapi->mapGetInt(props, GENERATION, 0, NULL) == generation(carriers);
}

int64_t generation(Carriers *carriers) {
    mutex_lock(&carriers->lock);
    int64_t now = carriers->generation;
    mutex_unlock(&carriers->lock);
    return now;
}

void let_go_of_carriers(Carriers *carriers) {
    mutex_lock(&carriers->lock);
    const VSFrame *current = swap(&carriers->current, NULL, 0), *next = swap(&carriers->next, NULL, 0);
    mutex_unlock(&carriers->lock);
    carriers->vsapi->freeFrame(current);
    carriers->vsapi->freeFrame(next);
}


/* ---- late pictures ---- */

static void free_late(const Carriers *carriers, Late *late) {
    /* Python may have the frames' memory in its hands until it has answered. */
    if (python_is_up()) carriers->worker.python.drop(carriers->worker.instance, late->number);
    for (int i = 0; i < late->count; i++) carriers->vsapi->freeFrame(late->frames[i]);
    free(late->frames);
    free(late->delivered);
    free(late);
}

static void stop_using(Carriers *carriers, Late *late) {
    mutex_lock(&carriers->lock);
    int last = --late->users == 0;
    mutex_unlock(&carriers->lock);
    if (last) free_late(carriers, late);
}

/* Takes `late` off the list, if it is there. Then, with `stale`, a new generation begins, too. */
static int take_off(Carriers *carriers, Late *late, int stale) {
    int found = 0;
    mutex_lock(&carriers->lock);
    for (int i = 0; i < MOST_LATE; i++)
        if (carriers->late[i] == late) carriers->late[i] = NULL, found = 1;
    if (found) carriers->generation += stale;
    mutex_unlock(&carriers->lock);
    if (found) stop_using(carriers, late);
    return found;
}

/* Lets go of what is of an older generation, ours and that of the filters after us: a frame has one
 * answer. */
static void drop_stale(Carriers *carriers, VSCore *core) {
    drop_late(carriers);
    let_go_of_carriers(carriers);
    carriers->vsapi->clearCoreCaches(core);
}

void make_stale(Carriers *carriers, VSCore *core) {
    mutex_lock(&carriers->lock);
    carriers->generation++;
    mutex_unlock(&carriers->lock);
    drop_stale(carriers, core);
}

int add_late(Carriers *carriers, int64_t number, VSFrame **frames, int count) {
    Late *late = calloc(1, sizeof *late);
    const VSFrame **kept = calloc((size_t)count, sizeof *kept);
    char *delivered = calloc((size_t)count, 1);
    if (!late || !kept || !delivered) {
        free(late);
        free(kept);
        free(delivered);
        return -1;
    }
    for (int i = 0; i < count; i++) kept[i] = carriers->vsapi->addFrameRef(frames[i]);
    *late = (Late){number, kept, delivered, count, count, 0, 1};
    mutex_lock(&carriers->lock);
    for (int i = 0; i < MOST_LATE; i++) {
        if (carriers->late[i]) continue;
        carriers->late[i] = late;
        break;
    }
    mutex_unlock(&carriers->lock);
    return 0;
}

/* The late pictures with this number, or the oldest ones if it is 0; the caller must stop using them. */
static Late *find_late(Carriers *carriers, int64_t number) {
    Late *found = NULL;
    mutex_lock(&carriers->lock);
    for (int i = 0; i < MOST_LATE; i++) {
        Late *late = carriers->late[i];
        if (!late || (number && late->number != number)) continue;
        if (!found || late->number < found->number) found = late;
    }
    if (found) found->users++;
    mutex_unlock(&carriers->lock);
    return found;
}

static int count_late(Carriers *carriers) {
    int count = 0;
    mutex_lock(&carriers->lock);
    for (int i = 0; i < MOST_LATE; i++) count += carriers->late[i] != NULL;
    mutex_unlock(&carriers->lock);
    return count;
}

/* Has Python write picture i. Several may ask for the same one: Python writes it once. Returns as
 * `deliver`. */
static int deliver_one(Carriers *carriers, Late *late, int i, char *error) {
    mutex_lock(&carriers->lock);
    int32_t done = late->delivered[i];
    mutex_unlock(&carriers->lock);
    if (done) return 0;
    if (python_is_up())
        carriers->worker.python.deliver(carriers->worker.instance, late->number, i, &done, error);
    else
        write_text(error, VSR_MESSAGE_SIZE, PYTHON_IS_DOWN, carriers->worker.filter);
    if (*error) return -1;
    if (!done) {
        write_text(error, VSR_MESSAGE_SIZE, "%s: fetching a picture from the device was interrupted. Ask for "
                   "its frame again.", carriers->worker.filter);
        return -1;
    }
    if (done != 1) return 1;
    mutex_lock(&carriers->lock);
    late->left -= !late->delivered[i];
    late->delivered[i] = 1;
    int all = late->left == 0;
    mutex_unlock(&carriers->lock);
    if (all) take_off(carriers, late, 0);
    return 0;
}

/* The frames whose pictures did not come stay empty: their carriers must not be handed out again. */
static void give_up(Carriers *carriers, Late *late, VSCore *core) {
    if (take_off(carriers, late, 1)) drop_stale(carriers, core);
}

void make_room(Carriers *carriers, int kept, VSCore *core) {
    while (count_late(carriers) > kept) {
        Late *late = find_late(carriers, 0);
        if (!late) return;
        char error[VSR_MESSAGE_SIZE] = "";
        int failed = 0;
        for (int i = 0; i < late->count && !failed; i++) failed = deliver_one(carriers, late, i, error);
        if (failed) give_up(carriers, late, core);
        stop_using(carriers, late);
    }
}

/* The late pictures of a carrier, or NULL; the caller must stop using them. */
static Late *late_of(Carriers *carriers, const VSFrame *carrier) {
    int none = 0;
    const VSMap *props = carriers->vsapi->getFramePropertiesRO(carrier);
    int64_t number = carriers->vsapi->mapGetInt(props, LATE, 0, &none);
    return none ? NULL : find_late(carriers, number);
}

int is_computed(Carriers *carriers, const VSFrame *carrier) {
    Late *late = late_of(carriers, carrier);
    if (!late) return 1;
    mutex_lock(&carriers->lock);
    int computed = late->computed;
    mutex_unlock(&carriers->lock);
    stop_using(carriers, late);
    return computed;
}

void wait_for(Carriers *carriers, const VSFrame *carrier) {
    Late *late = late_of(carriers, carrier);
    if (!late) return;
    if (python_is_up()) carriers->worker.python.wait(carriers->worker.instance, late->number);
    mutex_lock(&carriers->lock);
    late->computed = 1;
    mutex_unlock(&carriers->lock);
    stop_using(carriers, late);
}

int deliver(Carriers *carriers, const VSFrame *carrier, int i, VSCore *core, char *error) {
    Late *late = late_of(carriers, carrier);
    /* All its pictures are in their frames, or nobody wants them any longer. */
    if (!late) return !is_fresh(carriers, carrier);
    int failed = deliver_one(carriers, late, i, error);
    if (failed) give_up(carriers, late, core);
    stop_using(carriers, late);
    return failed;
}

void drop_late(Carriers *carriers) {
    for (Late *late; (late = find_late(carriers, 0));) {
        take_off(carriers, late, 0);
        stop_using(carriers, late);
    }
}

/* ---- going ahead ---- */

/* Whether `chunk` is neither here nor on its way, has not failed, and no other one is on its way. The one
 * before it has arrived, even if those who wait for it are told one after another. Under the lock. */
static int can_ask(const Carriers *carriers, int chunk) {
    int is_here = carriers->next.frame && carriers->next.chunk == chunk;
    return !is_here && chunk != carriers->failed && (carriers->asked < 0 || carriers->asked == chunk - 1);
}

int should_go_ahead(Carriers *carriers, int chunk, int chunk_frames) {
    mutex_lock(&carriers->lock);
    /* Requests side by side: some frames of the chunk before still come after the first of this one. */
    if (chunk != carriers->chunk_read - 1 || carriers->run == 0) {
        int in_order = chunk == carriers->chunk_read + 1;
        if (chunk != carriers->chunk_read) {
            carriers->reads_through = in_order && 2 * carriers->frames_read >= chunk_frames;
            carriers->chunk_read = chunk;
            carriers->frames_read = 0;
            if (!in_order) carriers->run = 0, carriers->failed = -1;
        }
        carriers->frames_read++;
        carriers->run++;
    }
    int reading = carriers->reads_through || 2 * carriers->frames_read >= chunk_frames;
    int wanted = chunk == carriers->chunk_read && reading && carriers->run >= FRAMES_OF_A_READER &&
                 can_ask(carriers, chunk + 1);
    if (wanted) carriers->asked = chunk + 1;
    mutex_unlock(&carriers->lock);
    return wanted;
}

int goes_through(Carriers *carriers, int chunk) {
    mutex_lock(&carriers->lock);
    int wanted = chunk == carriers->chunk_read + 1 && carriers->run >= FRAMES_OF_A_READER &&
                 can_ask(carriers, chunk + 1);
    if (wanted) carriers->asked = chunk + 1;
    mutex_unlock(&carriers->lock);
    return wanted;
}

static void VS_CC came_ahead(void *data, const VSFrame *carrier, int chunk, VSNode *node, const char *error) {
    Carriers *carriers = data;
    const VSAPI *vsapi = carriers->vsapi;
    (void)error; /* the chunk fails again, and is reported, when it is asked for */
    if (carrier) hold_carrier(carriers, carrier, chunk, 1);
    mutex_lock(&carriers->lock);
    if (!carrier) carriers->failed = chunk;
    if (carriers->asked == chunk) carriers->asked = -1;
    mutex_unlock(&carriers->lock);
    vsapi->freeNode(node);
    release_carriers(carriers);
}

void go_ahead(Carriers *carriers, VSNode *early, int chunk) {
    const VSAPI *vsapi = carriers->vsapi;
    vsapi->getFrameAsync(chunk, vsapi->addNodeRef(early), came_ahead, share_carriers(carriers));
}
