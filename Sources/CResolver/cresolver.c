#include "cresolver.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number_of(const char *type) {
    static const struct {
        const char *name;
        int number;
    } types[] = {{"A", ns_t_a}, {"AAAA", ns_t_aaaa}, {"CNAME", ns_t_cname}, {"MX", ns_t_mx}, {"TXT", ns_t_txt}};
    for (size_t index = 0; index < sizeof types / sizeof types[0]; index++)
        if (strcmp(types[index].name, type) == 0) return types[index].number;
    return -1;
}

/* The text of one record, or -1. */
static int text_of(ns_msg *message, ns_rr *record, char *text, size_t size) {
    const unsigned char *data = ns_rr_rdata(*record);
    size_t length = ns_rr_rdlen(*record);
    char name[NS_MAXDNAME];
    switch (ns_rr_type(*record)) {
    case ns_t_a:
        return length == 4 && inet_ntop(AF_INET, data, text, (socklen_t)size) ? (int)strlen(text) : -1;
    case ns_t_aaaa:
        return length == 16 && inet_ntop(AF_INET6, data, text, (socklen_t)size) ? (int)strlen(text) : -1;
    case ns_t_cname:
        if (ns_name_uncompress(ns_msg_base(*message), ns_msg_end(*message), data, name, sizeof name) < 0) return -1;
        return snprintf(text, size, "%s", name);
    case ns_t_mx:
        if (length < 3) return -1;
        if (ns_name_uncompress(ns_msg_base(*message), ns_msg_end(*message), data + 2, name, sizeof name) < 0) return -1;
        return snprintf(text, size, "%u %s", ns_get16(data), name);
    case ns_t_txt: {
        size_t used = 0;
        while (length > 0) {
            size_t part = *data;
            if (part + 1 > length || used + part > size) return -1;
            memcpy(text + used, data + 1, part);
            used += part;
            data += part + 1;
            length -= part + 1;
        }
        return (int)used;
    }
    default:
        return -1;
    }
}

/* Buffers for one question: not on a stack, nor in what every thread has of its own. */
struct buffers {
    unsigned char answer[NS_MAXMSG];
    char text[NS_MAXMSG];
};

static int ask(const char *name, int wanted, void (*each)(void *context, const char *text, int length), void *context,
               struct buffers *buffers) {
    struct __res_state state;
    memset(&state, 0, sizeof state);
    if (res_ninit(&state) < 0) return -EAGAIN;
    /* The name that was asked for, and no other. */
    state.options &= ~(unsigned long)(RES_DNSRCH | RES_DEFNAMES);
    int length = res_nquery(&state, name, ns_c_in, wanted, buffers->answer, sizeof buffers->answer);
    int failure = state.res_h_errno;
    res_nclose(&state);
    if (length < 0)
        return failure == HOST_NOT_FOUND ? -ENOENT : failure == NO_DATA ? -ENODATA : -EAGAIN;
    ns_msg message;
    if (ns_initparse(buffers->answer, length, &message) < 0) return -EBADMSG;
    int count = 0;
    for (int index = 0; index < ns_msg_count(message, ns_s_an); index++) {
        ns_rr record;
        if (ns_parserr(&message, ns_s_an, index, &record) < 0) return -EBADMSG;
        if ((int)ns_rr_type(record) != wanted) continue;
        int size = text_of(&message, &record, buffers->text, sizeof buffers->text);
        if (size < 0) return -EBADMSG;
        each(context, buffers->text, size);
        count++;
    }
    return count > 0 ? 0 : -ENODATA;
}

int krux_dns_query(const char *name, const char *type, void (*each)(void *context, const char *text, int length),
                   void *context) {
    int wanted = number_of(type);
    if (wanted < 0) return -EINVAL;
    struct buffers *buffers = malloc(sizeof *buffers);
    if (!buffers) return -EAGAIN;
    int result = ask(name, wanted, each, context, buffers);
    free(buffers);
    return result;
}
