/* A stored message on its way out over POP3 (store/steps.py, pop3/stuffing.py). */
#define _GNU_SOURCE
#include <string.h>

/* Every LF of `data` becomes CRLF, and a line that begins with a dot gets another one in front (RFC 1939 3). `start`:
 * whether `data` begins a line. `wire` needs room for twice as many octets and one. Returns how many are used. */
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
