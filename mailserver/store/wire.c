/* A content between its form on the wire, with CRLF and stuffed dots, and its stored form, with LF (store/wire.py). */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>

/* A content that arrives piece by piece: `start` is where to go on in what came last, `lines` are those of the stored
 * form. `bare`: a CR or LF was not part of a CRLF. `ended`: the terminator was met; without `dots` (BDAT) there is none. */
struct incoming {
    int64_t start, lines;
    int place, dots, bare, eight_bit, ended;
};
enum { LINE_START, IN_LINE, AFTER_CR, AFTER_DOT, AFTER_DOT_CR }; /* work.py knows the first three */

/* From the start of a line, or inside one, to its end or that of what is there. A line is searched twice at memchr's
 * speed, for its LF, and for a CR that does not stand before that. */
static const char *to_line_end(struct incoming *content, const char *data, const char *end, char **stored)
{
    const char *lf = memchr(data, '\n', (size_t)(end - data));
    const char *stop = lf != NULL ? lf : end;
    const char *cr = memchr(data, '\r', (size_t)(stop - data));
    int ends_with_cr = stop > data && stop[-1] == '\r';
    size_t length = (size_t)(stop - data) - (size_t)ends_with_cr;
    if (cr != NULL && cr + 1 != stop)
        content->bare = 1;
    memcpy(*stored, data, length);
    *stored += length;
    if (lf == NULL) {
        content->place = ends_with_cr ? AFTER_CR : IN_LINE;
        return end;
    }
    *(*stored)++ = '\n';
    content->lines += ends_with_cr;
    content->bare |= !ends_with_cr;
    content->place = ends_with_cr ? LINE_START : IN_LINE;
    return lf + 1;
}

static int has_eight_bit(const char *text, const char *end)
{
    uint64_t word, seen = 0;
    for (; end - text >= (long)sizeof word; text += sizeof word) {
        memcpy(&word, text, sizeof word);
        seen |= word;
    }
    for (; text < end; text++)
        seen |= (unsigned char)*text & 0x80u;
    return (seen & 0x8080808080808080u) != 0;
}

/* The stored form of the octets of `wire` from content->start on, up to `end` or the terminator. Room is needed for one
 * octet more. Returns how many are used. What cannot be decided yet, a CR or a dot, is remembered by `place`. */
long stored_form(struct incoming *content, const char *wire, long end, char *stored)
{
    const char *data = wire + content->start, *stop = wire + end;
    char *out = stored;
    while (data < stop && !content->ended) {
        switch (content->place) {
        case LINE_START:
            if (content->dots && *data == '.') {
                content->place = AFTER_DOT;
                data++;
                break;
            } /* fall through */
        case IN_LINE:
            data = to_line_end(content, data, stop, &out);
            break;
        case AFTER_DOT:
            content->place = *data == '\r' ? AFTER_DOT_CR : IN_LINE;
            data += *data == '\r';
            break;
        default: /* a CR was held back */
            if (*data != '\n') {
                content->bare = 1;
                content->place = IN_LINE;
                *out++ = '\r';
                break;
            }
            data++;
            content->ended = content->place == AFTER_DOT_CR;
            if (!content->ended) {
                content->lines++;
                content->place = LINE_START;
                *out++ = '\n';
            }
        }
    }
    content->start = data - wire;
    if (!content->eight_bit)
        content->eight_bit = has_eight_bit(stored, out);
    return out - stored;
}

/* Every LF of `data` becomes CRLF, and a line that begins with a dot gets another one in front. `start`: whether `data`
 * begins a line. `wire` needs room for twice as many octets and one. Returns how many are used. */
long wire_form(const char *data, long size, int start, char *wire)
{
    char *out = wire;
    const char *end = data + size, *line_end;
    while (data < end) {
        if (start && *data == '.')
            *out++ = '.';
        line_end = memchr(data, '\n', (size_t)(end - data));
        size_t length = (size_t)((line_end != NULL ? line_end : end) - data);
        memcpy(out, data, length);
        out += length;
        if (line_end == NULL)
            break;
        *out++ = '\r';
        *out++ = '\n';
        data = line_end + 1;
        start = 1;
    }
    return out - wire;
}
