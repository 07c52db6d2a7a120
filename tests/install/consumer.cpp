// A program outside the project: includes an installed header, links the library, checks one value.
#include <cstdio>

#include "libswitch/base/error.h"

int main() {
  const int code = sw::exit_code(sw::ErrorKind::usage);
  if (code != 2) std::printf("consumer: exit_code(usage): expected 2, got %d\n", code);
  return code == 2 ? 0 : 1;
}
