/* Questions to the machine's resolver for kinds of records that getaddrinfo does not give. */
#ifndef KRUX_CRESOLVER_H
#define KRUX_CRESOLVER_H

/* Asks for the records of `type` ("A", "AAAA", "CNAME", "MX" or "TXT") of `name`, as resolv.conf says. Calls `each` with
 * the text of each record of that type in the answer: an address, a name, "10 mail.example", or a TXT record's strings
 * joined. Bytes of names and texts are as they came. Returns 0, or -ENOENT for no such name, -ENODATA for none of that
 * type, -EAGAIN where no server gives an answer, -EBADMSG for one that cannot be read, -EINVAL for another type. Blocks. */
int krux_dns_query(const char *name, const char *type, void (*each)(void *context, const char *text, int length),
                   void *context);

#endif
