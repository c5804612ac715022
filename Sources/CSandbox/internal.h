#ifndef KRUX_CSANDBOX_INTERNAL_H
#define KRUX_CSANDBOX_INTERNAL_H
#include "csandbox.h"
#include <sys/types.h>

/* All return 0 or a negative errno. */
int krux_map_identity(uid_t uid, gid_t gid);
int krux_build_root(const struct krux_launch *launch);
/* Returns only on failure, the step in `failed`. */
int krux_confine_and_exec(const struct krux_launch *launch, uint32_t *failed);
/* Whether the child of this process has already reported a failed step. */
int krux_exec_failed(int status_fd);
#endif
