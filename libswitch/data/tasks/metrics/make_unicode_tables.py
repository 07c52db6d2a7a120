#!/usr/bin/env python3
"""Prints unicode_tables.cpp: what Python's str.lower() and str.isalnum() say of every code point.

    python3 make_unicode_tables.py > unicode_tables.cpp
"""
import unicodedata

# Code points whose lower case is one other code point, in runs (first, last, step, distance).
lower = [(c, ord(chr(c).lower()) - c) for c in range(0x80, 0x110000)
         if not 0xD800 <= c < 0xE000 and len(chr(c).lower()) == 1 and chr(c).lower() != chr(c)]
runs = []
for c, d in lower:
    if runs and runs[-1][3] == d:
        first, last, step, _ = runs[-1]
        if c - last in (1, 2) and (first == last or c - last == step):
            runs[-1] = (first, c, c - last, d)
            continue
    runs.append((c, c, 1, d))

# Letters, digits and other numbers, in ranges (first, last).
ranges = []
for c in range(0x80, 0x110000):
    if not 0xD800 <= c < 0xE000 and chr(c).isalnum():
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])


def rows(items):
    line, out = '   ', []
    for item in items:
        text = ' {' + ', '.join(item) + '},'
        if len(line) + len(text) > 99:
            out.append(line)
            line = '   '
        line += text
    return '\n'.join(out + [line])


print(f'''// Made by make_unicode_tables.py from Unicode {unicodedata.unidata_version}; not to be edited.
#include "libswitch/data/tasks/metrics/unicode_tables.h"

namespace sw {{

namespace {{

// clang-format off
const CaseRun kLowerCase[] = {{
{rows([(hex(a), hex(b), str(s), str(d)) for a, b, s, d in runs])}
}};

const CodePointRange kAlphanumeric[] = {{
{rows([(hex(a), hex(b)) for a, b in ranges])}
}};
// clang-format on

}}  // namespace

std::span<const CaseRun> lower_case_runs() {{ return kLowerCase; }}
std::span<const CodePointRange> alphanumeric_ranges() {{ return kAlphanumeric; }}

}}  // namespace sw''')
