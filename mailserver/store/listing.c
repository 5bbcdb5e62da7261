/* What is done for each of a great many messages (store/steps.py): listing a Maildir, measuring files, writing the
 * lines of LIST and UIDL. The callers can do the same in Python (store/scan.py, pop3/maildrop.py): each of these
 * functions does exactly that, or says that it cannot be done here.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FEW = 512 };                                      /* files there is room for at first */
enum { NAMES_MAX = 1 << 30, FILES_MAX = NAMES_MAX / 2 }; /* octets of all names of a Maildir */
enum { UID_MAX = 70 };                                   /* octets of a unique-id, RFC 1939 7 */
enum { BUFFER = 1 << 16 };                               /* octets read at once */
enum { AHEAD = 8 };                                      /* names fetched into the cache before their turn */

/* What a file's name tells: its place in delivery order (_order of scan.py is the same), and its size. The stem
 * precedes the first comma or colon: what differs in it is another message and has another unique-id. */
struct item {
    uint64_t seconds;
    int64_t size; /* as in struct listing */
    uint32_t usec, serial;
    uint32_t start;       /* where the name begins */
    uint8_t length, stem; /* octets: names have 255 at most */
};

struct listing {
    const char *new, *cur;       /* the folders */
    int64_t new_time, cur_time;  /* when they were changed, before they were read: nanoseconds, Unix time */
    char *names;                 /* in delivery order, each with a NUL behind it */
    int64_t *sizes;              /* on the wire, times two, plus one in new/; negative where the name does not tell */
    long count, length;          /* files, -1: this cannot be known here; octets of `names` */
    struct item *items;
    long names_room, items_room; /* octets, items */
};

/* Up to `most` decimal digits at `text`; how many. */
static int digits(const char *text, int most, uint64_t *value)
{
    int count = 0;
    for (*value = 0; count < most && text[count] >= '0' && text[count] <= '9'; count++)
        *value = *value * 10 + (uint64_t)(text[count] - '0');
    return count;
}

/* The number behind the first `mark` that has one, 0 without. */
static uint32_t marked(const char *text, const char *end, char mark)
{
    uint64_t value;
    for (; text < end; text++)
        if (*text == mark && digits(text + 1, 9, &value))
            return (uint32_t)value;
    return 0;
}

/* -1: the name tells no time. */
static int place(const char *name, struct item *item)
{
    int count = digits(name, 15, &item->seconds);
    const char *second = name + count + 1, *end;
    if (count == 0 || name[count] != '.')
        return -1;
    end = second + strcspn(second, ".,:");
    item->usec = marked(second, end, 'M');
    item->serial = marked(second, end, 'Q');
    item->stem = (uint8_t)(end - name + (long)strcspn(end, ",:"));
    return 0;
}

/* Octets on the wire by the field ,W= of the base name; -1: there is none. */
static int64_t wire_field(const char *name)
{
    const char *end = strchrnul(name, ':');
    uint64_t value;
    while ((name = strstr(name, ",W=")) != NULL && name < end) {
        int count = digits(name += 3, 15, &value);
        if (count > 0 && (name + count == end || name[count] == ','))
            return (int64_t)value;
    }
    return -1;
}

/* Twice the memory where `wanted` things of `size` octets exceed `room`; -1: there is none, or they are too many. */
static int make_room(void *memory, long *room, long wanted, size_t size, long most)
{
    void *moved;
    if (wanted <= *room)
        return 0;
    if (wanted > most || (moved = realloc(*(void **)memory, 2 * (size_t)*room * size)) == NULL)
        return -1;
    *(void **)memory = moved;
    *room *= 2;
    return 0;
}

static int add(struct listing *all, const char *name, int fresh)
{
    size_t length = strlen(name);
    struct item item = {.start = (uint32_t)all->length, .length = (uint8_t)length};
    if (length > UINT8_MAX || place(name, &item) < 0 ||
        make_room(&all->names, &all->names_room, all->length + (long)length + 1, 1, NAMES_MAX) < 0 ||
        make_room(&all->items, &all->items_room, all->count + 1, sizeof item, FILES_MAX) < 0)
        return -1;
    item.size = 2 * wire_field(name) + fresh;
    all->items[all->count++] = item;
    memcpy(all->names + all->length, name, length + 1);
    all->length += (long)length + 1;
    return 0;
}

static int changed(const char *folder, int64_t *time)
{
    struct stat status;
    if (stat(folder, &status) < 0)
        return -1;
    *time = status.st_mtim.tv_sec * INT64_C(1000000000) + status.st_mtim.tv_nsec;
    return 0;
}

/* Add the regular files in `folder`, hidden ones left out. */
static int add_folder(struct listing *all, const char *folder, int fresh)
{
    int result = 0;
    struct dirent *entry;
    DIR *stream = opendir(folder);
    if (stream == NULL)
        return -1;
    while (result == 0 && (errno = 0, entry = readdir(stream)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        if (entry->d_type == DT_UNKNOWN)
            result = -1;
        else if (entry->d_type == DT_REG)
            result = add(all, entry->d_name, fresh);
    }
    if (result == 0 && errno != 0)
        result = -1;
    closedir(stream);
    return result;
}

static int compare(const void *left, const void *right, void *names)
{
    const struct item *a = left, *b = right;
    int order;
    if (a->seconds != b->seconds)
        return a->seconds < b->seconds ? -1 : 1;
    if (a->usec != b->usec)
        return a->usec < b->usec ? -1 : 1;
    if (a->serial != b->serial)
        return a->serial < b->serial ? -1 : 1;
    order = memcmp((char *)names + a->start, (char *)names + b->start, a->stem < b->stem ? a->stem : b->stem);
    return order != 0 ? order : a->stem - b->stem;
}

/* Put names and sizes in order. -1: two of them may be one message or claim one unique-id. */
static int arrange(struct listing *all)
{
    char *names = malloc((size_t)all->length + 1), *end = names;
    all->sizes = malloc(((size_t)all->count + 1) * sizeof *all->sizes);
    if (names == NULL || all->sizes == NULL) {
        free(names);
        return -1;
    }
    qsort_r(all->items, (size_t)all->count, sizeof *all->items, compare, all->names);
    for (long i = 0; i < all->count; i++) {
        struct item *item = &all->items[i];
        if (i > 0 && compare(item - 1, item, all->names) == 0) {
            free(names);
            return -1;
        }
        if (i + AHEAD < all->count)
            __builtin_prefetch(all->names + item[AHEAD].start);
        all->sizes[i] = item->size;
        memcpy(end, all->names + item->start, item->length + 1U);
        end += item->length + 1;
    }
    free(all->names);
    all->names = names;
    return 0;
}

void free_listing(struct listing *all)
{
    free(all->names);
    free(all->sizes);
    all->names = NULL;
    all->sizes = NULL;
}

/* What lies in both folders, in delivery order; free_listing it then. */
void list_maildir(void *what)
{
    struct listing *all = what;
    all->count = all->length = 0;
    all->names_room = 64 * FEW;
    all->items_room = FEW;
    all->names = malloc((size_t)all->names_room);
    all->items = malloc((size_t)all->items_room * sizeof *all->items);
    /* new/ first: a file that is moved to cur/ meanwhile is seen twice rather than not at all. */
    if (all->names == NULL || all->items == NULL || changed(all->new, &all->new_time) < 0 ||
        changed(all->cur, &all->cur_time) < 0 || add_folder(all, all->new, 1) < 0 ||
        add_folder(all, all->cur, 0) < 0 || arrange(all) < 0)
        all->count = -1;
    free(all->items);
    all->items = NULL;
}

/* Octets of a file when every bare LF is sent as CRLF and a last line without an end gets one (RFC 1939 3); -1: it
 * cannot be read. */
static int64_t wire_size(int folder, const char *name, char *buffer)
{
    int64_t size = 0, offset = 0;
    char last = '\n', *end, *line;
    ssize_t got;
    /* store/content.py: READ_ONLY */
    int fd = openat(folder, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    for (; (got = pread(fd, buffer, BUFFER, offset)) > 0; offset += got) {
        end = buffer + got;
        size += got;
        for (char *from = buffer; (line = memchr(from, '\n', (size_t)(end - from))) != NULL; from = line + 1)
            size += (line > buffer ? line[-1] : size > got ? last : 0) != '\r';
        last = end[-1];
    }
    close(fd);
    return got < 0 ? -1 : size + (size > 0 && last != '\n' ? 2 : 0);
}

/* sizes[i] becomes what names[i], a path from `folder`, has on the wire; -1: it cannot be read. */
void wire_sizes(const char *folder, const char *const *names, int count, int64_t *sizes)
{
    char buffer[BUFFER];
    int start = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < count; i++)
        sizes[i] = start < 0 ? -1 : wire_size(start, names[i], buffer);
    if (start >= 0)
        close(start);
}

static char *put_number(char *out, uint64_t value)
{
    char reversed[20];
    int count = 0;
    do
        reversed[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count > 0)
        *out++ = reversed[--count];
    return out;
}

/* "NUMBER SIZE" of messages from `number` on, whose sizes are as in struct listing. Returns octets of `lines`, for
 * which there must be room: 42 a message. */
long size_lines(const int64_t *sizes, int count, long number, char *lines)
{
    char *out = lines;
    for (int i = 0; i < count; i++) {
        out = put_number(out, (uint64_t)(number + i));
        *out++ = ' ';
        out = put_number(out, (uint64_t)sizes[i] >> 1);
        *out++ = '\r';
        *out++ = '\n';
    }
    return out - lines;
}

/* Whether a field ,S= or ,W= begins at the comma `text`; what follows it. */
static const char *behind_field(const char *text)
{
    const char *end = text + 3;
    if ((text[1] != 'S' && text[1] != 'W') || text[2] != '=' || *end < '0' || *end > '9')
        return NULL;
    while (*end >= '0' && *end <= '9')
        end++;
    return *end == ',' || *end == ':' || *end == '\0' ? end : NULL;
}

/* "NUMBER UNIQUE-ID" of messages from `number` on; each of `names` ends in NUL, and its unique-id is what natural_uid
 * (store/maildir.py) makes of it. Returns octets of `lines`, for which there must be room: 93 a message; -1: one has
 * another unique-id. */
long uid_lines(const char *names, int count, long number, char *lines)
{
    char *out = lines;
    for (int i = 0; i < count; i++) {
        char *uid;
        const char *behind;
        uid = out = put_number(out, (uint64_t)(number + i));
        *out++ = ' ';
        while (*names != '\0' && *names != ':') {
            if (*names == ',' && (behind = behind_field(names)) != NULL) {
                names = behind;
                continue;
            }
            if (*names < '!' || *names > '~' || out - uid > UID_MAX)
                return -1;
            *out++ = *names++;
        }
        if (out == uid + 1)
            return -1;
        names += strlen(names) + 1;
        *out++ = '\r';
        *out++ = '\n';
    }
    return out - lines;
}
