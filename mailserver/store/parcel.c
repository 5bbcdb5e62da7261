/* Jobs in the form that commit.c works on, made of what Python can say with few objects (store/parcel.py). */
#include "commit.h"
#include <stdlib.h>
#include <string.h>

/* The next `count` strings of `text`, which end with NUL; returns what follows them. */
static const char *point(const char **strings, int count, const char *text)
{
    for (int i = 0; i < count; i++) {
        strings[i] = text;
        text += strlen(text) + 1;
    }
    return text;
}

/* All but the contents is copied. `numbers`: the part counts, the name counts, and the sizes of the contents; `text`: the
 * names and then what is to be removed, each with a NUL behind it, `size` octets. To be freed by free(3). NULL: there is
 * no memory. */
struct parcel *parcel_new(int files, int parts, int names, int removals, const int64_t *numbers,
                          const char *const *contents, const char *text, long size)
{
    size_t counted = (2 * (size_t)files + (size_t)parts) * sizeof *numbers;
    size_t pointed = ((size_t)parts + (size_t)names + (size_t)removals) * sizeof *contents;
    struct parcel *parcel = malloc(sizeof *parcel + counted + pointed + (size_t)size);
    if (!parcel)
        return NULL;
    int64_t *copied = (int64_t *)(parcel + 1);
    const char **pointers = (const char **)(copied + 2 * files + parts);
    char *copy = (char *)(pointers + parts + names + removals);
    memcpy(copied, numbers, counted);
    memcpy(copy, text, (size_t)size);
    memcpy(pointers, contents, (size_t)parts * sizeof *contents);
    point(pointers + parts + names, removals, point(pointers + parts, names, copy));
    *parcel = (struct parcel){
        .plain = 1, .files = files, .names_total = names, .removals = removals,
        .part_counts = copied, .name_counts = copied + files, .sizes = copied + 2 * files,
        .parts = pointers, .names = pointers + parts, .remove = pointers + parts + names,
    };
    return parcel;
}
