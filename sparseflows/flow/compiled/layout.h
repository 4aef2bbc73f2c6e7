/* Where the members of the structures that Python fills lie: layout.py holds them against its own before the first call. */
#pragma once
#include "adaptive.h"
#include "training.h"
#include <stddef.h>

typedef struct {
    const char *name;
    long place, size; /* bytes */
} Member;

#define WHOLE_OF(structure) {#structure, 0, (long)sizeof(structure)}
#define MEMBER(structure, name) {#structure "." #name, (long)offsetof(structure, name), (long)sizeof(((structure *)0)->name)}

static const Member members[] = {
    WHOLE_OF(REAL),
    WHOLE_OF(Block),
    MEMBER(Block, layers), MEMBER(Block, activation), MEMBER(Block, based), MEMBER(Block, width), MEMBER(Block, tensor),
    MEMBER(Block, gradient), MEMBER(Block, end_time), MEMBER(Block, of_end_time), MEMBER(Block, steps), MEMBER(Block, step),
    WHOLE_OF(Tableau),
    MEMBER(Tableau, stages), MEMBER(Tableau, order), MEMBER(Tableau, a), MEMBER(Tableau, b), MEMBER(Tableau, c),
    MEMBER(Tableau, error),
    WHOLE_OF(Control),
    MEMBER(Control, rtol), MEMBER(Control, atol), MEMBER(Control, max_nfe), MEMBER(Control, by_row), MEMBER(Control, reverse),
    MEMBER(Control, begin), MEMBER(Control, first), MEMBER(Control, nfe), MEMBER(Control, steps), MEMBER(Control, room), MEMBER(Control, taken),
    MEMBER(Control, status),
    WHOLE_OF(Update),
    MEMBER(Update, optimiser), MEMBER(Update, params), MEMBER(Update, weight_decay), MEMBER(Update, momentum),
    MEMBER(Update, beta2), MEMBER(Update, eps), MEMBER(Update, clip), MEMBER(Update, average_decay),
    MEMBER(Update, weights), MEMBER(Update, gradient), MEMBER(Update, mean), MEMBER(Update, square),
    MEMBER(Update, average), MEMBER(Update, withheld), MEMBER(Update, gone), MEMBER(Update, steps), MEMBER(Update, averaged),
    WHOLE_OF(Course),
    MEMBER(Course, steps), MEMBER(Course, taken), MEMBER(Course, rows), MEMBER(Course, data), MEMBER(Course, noise),
    MEMBER(Course, time), MEMBER(Course, rate), MEMBER(Course, loss),
};

/* The i-th of the members: its name, its place and its size; NULL after the last. */
const char *layout(int i, long *place, long *size) {
    if (i >= (int)(sizeof(members) / sizeof(members[0]))) return NULL;
    *place = members[i].place, *size = members[i].size;
    return members[i].name;
}
