/* The main() of SQLite's multi-process test program, which cannot load extensions: loads the one that HARDENED_EXTENSION names
** and goes on. The shutdown is for mptest, which configures SQLite before it opens anything; the VFS outlives it. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

/* mptest's own, renamed by the compiler's -Dmain=mptest_main. */
int mptest_main(int argc, char **argv);

static int load(const char *library) {
  sqlite3 *host = NULL;
  char *message = NULL;
  int code = sqlite3_open(":memory:", &host);
  if (code == SQLITE_OK) code = sqlite3_enable_load_extension(host, 1);
  if (code == SQLITE_OK) code = sqlite3_load_extension(host, library, NULL, &message);
  if (code != SQLITE_OK) fprintf(stderr, "%s: %s\n", library, message ? message : sqlite3_errstr(code));
  sqlite3_free(message);
  sqlite3_close(host);
  if (code == SQLITE_OK) code = sqlite3_shutdown();
  return code;
}

int main(int argc, char **argv) {
  const char *library = getenv("HARDENED_EXTENSION");
  if (library != NULL && load(library) != SQLITE_OK) return 1;
  return mptest_main(argc, argv);
}
