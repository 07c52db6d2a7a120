#!/usr/bin/env python3
"""Prints unicode_tables.cpp: what Python's str.lower() and str.isalnum() make of every code point.

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


def ranges_of(holds):
    """Code points for which `holds`, in ranges (first, last)."""
    ranges = []
    for c in range(0x80, 0x110000):
        if not 0xD800 <= c < 0xE000 and holds(chr(c)):
            if ranges and ranges[-1][1] == c - 1:
                ranges[-1][1] = c
            else:
                ranges.append([c, c])
    return ranges


def final_sigma_before(text):
    return ('a\u03a3' + text).lower()[1] == '\u03c2'


# A sigma is final unless, past characters that case ignores, a letter with case follows.
alphanumeric = ranges_of(str.isalnum)
cased = ranges_of(lambda c: not final_sigma_before(c))
case_ignorable = ranges_of(lambda c: final_sigma_before(c) and not final_sigma_before(c + 'a'))


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
{rows([(hex(a), hex(b)) for a, b in alphanumeric])}
}};

const CodePointRange kCased[] = {{
{rows([(hex(a), hex(b)) for a, b in cased])}
}};

const CodePointRange kCaseIgnorable[] = {{
{rows([(hex(a), hex(b)) for a, b in case_ignorable])}
}};
// clang-format on

}}  // namespace

std::span<const CaseRun> lower_case_runs() {{ return kLowerCase; }}
std::span<const CodePointRange> alphanumeric_ranges() {{ return kAlphanumeric; }}
std::span<const CodePointRange> cased_ranges() {{ return kCased; }}
std::span<const CodePointRange> case_ignorable_ranges() {{ return kCaseIgnorable; }}

}}  // namespace sw''')
