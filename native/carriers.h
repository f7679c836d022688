/* What VsrChunk, Vsr and the frames asked for early share: the carriers that are handed out, and the
 * pictures in them that a device still computes. */
#ifndef VSR_CARRIERS_H
#define VSR_CARRIERS_H

#include "VapourSynth4.h"
#include "abi.h"
#include "portable.h"

/* How the filter is known to Python. */
typedef struct {
    const char *filter;
    VsrCallbacks python;
    int64_t instance;
} Worker;

/* The pictures of one chunk that are not all in their frames yet. */
typedef struct {
    int64_t number; /* by which Python knows them */
    const VSFrame **frames;
    char *delivered;
    int count, left;
    int computed; /* whether somebody has waited until the device had computed them */
    int users; /* the list below, and whoever is delivering one of them */
} Late;

typedef struct {
    const VSFrame *frame; /* or NULL */
    int chunk;
} Held;

/* Chunks whose pictures may be on a device: the one handed out, the one computed ahead, and one more. */
enum { MOST_LATE = 3 };

typedef struct {
    Worker worker;
    const VSAPI *vsapi;
    Mutex lock;
    int owners;
    int fetching;       /* input frames asked for early that have not arrived */
    Held current, next; /* the carriers being handed out and made ahead; they survive a flush of the caches */
    int64_t generation; /* how many times earlier pictures have become stale */
    Late *late[MOST_LATE];
    int chunk_read, frames_read, run; /* what is being read: frames of this chunk, frames since a seek */
    int reads_through;                /* whether the chunk before was read too */
    int asked, failed;                /* the chunk computed ahead that has not arrived, or has failed; or -1 */
} Carriers;

/* Properties of a carrier: its output frames, their generation, and the number of its late pictures, if
 * it has any. */
extern const char *const FRAMES, *const GENERATION, *const LATE;

/* NULL without memory. */
Carriers *new_carriers(const Worker *worker, const VSAPI *vsapi);
Carriers *share_carriers(Carriers *carriers);
void release_carriers(Carriers *carriers);

/* The carrier of `chunk`, if it is held; the reference is the caller's. */
const VSFrame *held_carrier(Carriers *carriers, int chunk);

/* Holds `frame`, the carrier of `chunk`, as the one being handed out, or as the one made ahead. Takes the
 * reference. A carrier of an older generation is not held: returns 0, and what was held stays. */
int hold_carrier(Carriers *carriers, const VSFrame *frame, int chunk, int ahead);
/* Lets go of the carrier being handed out, if it is that of `chunk`. */
void let_go_of_carrier(Carriers *carriers, int chunk);
void let_go_of_carriers(Carriers *carriers);

int64_t generation(Carriers *carriers);
/* Begins a new generation: drops earlier pictures, ours and those of the filters after us. */
void make_stale(Carriers *carriers, VSCore *core);

/* Makes room for the late pictures of one more chunk: those of the last `kept` chunks stay late, at most
 * MOST_LATE - 1; older ones are delivered. */
void make_room(Carriers *carriers, int kept, VSCore *core);
/* Notes that Python will deliver the `count` frames later. Returns 0, or -1 without memory. */
int add_late(Carriers *carriers, int64_t number, VSFrame **frames, int count);
/* Sees to it that frame i of a carrier has its picture. Returns 0; 1 if the carrier is of no use, as its
 * chunk must be computed anew; or -1 and `error`. */
int deliver(Carriers *carriers, const VSFrame *carrier, int i, VSCore *core, char *error);
/* Forgets all pictures that are still late; only when nobody else uses the carriers any longer. */
void drop_late(Carriers *carriers);

/* Whether the pictures of a carrier need not be waited for. */
int is_computed(Carriers *carriers, const VSFrame *carrier);
/* Waits until they are computed. If that fails, `deliver` says so. */
void wait_for(Carriers *carriers, const VSFrame *carrier);

/* Notes that a frame of `chunk` is about to be handed out. Returns whether the next chunk should be asked
 * for now: the clip is read in order, and no other one is on its way. `go_ahead` must follow. */
int should_go_ahead(Carriers *carriers, int chunk, int chunk_frames);
/* The same when `chunk` is asked for, before any frame of it is handed out. */
int goes_through(Carriers *carriers, int chunk);
/* Asks for `chunk` through `early` (early.h), and holds it. */
void go_ahead(Carriers *carriers, VSNode *early, int chunk);

#endif
