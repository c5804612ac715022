#ifndef KRUX_CSANDBOX_INTERNAL_H
#define KRUX_CSANDBOX_INTERNAL_H
#include "csandbox.h"
#include <sys/types.h>

/* All return 0 or a negative errno. */
int krux_map_identity(uid_t uid, gid_t gid);
/* By a root zygote for its child: both users as themselves, the groups of the same numbers. */
int krux_map_identity_of(pid_t child, uid_t uid, uid_t agent);
/* Raises the loopback interface and listens where programs are told that the proxy is; a descriptor. */
int krux_listen_for_proxy(void);
/* With or without sockets other than pairs. */
int krux_apply_seccomp(int sockets);
int krux_build_root(const struct krux_launch *launch);
/* Returns only on failure, the step in `failed`; the layers that hold are in `held`, and told on `report_fd`, which
 * closes at exec. */
int krux_confine_and_exec(const struct krux_launch *launch, uint32_t *failed, uint32_t *held, int report_fd);
#endif
