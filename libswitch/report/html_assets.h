// Style and script of the page; report/report_html.h uses them.
#pragma once

namespace sw {

extern const char* const kPageStyle;
/// Sorts tables by a click on their heads, and writes the large tables when they are opened.
extern const char* const kPageScript;

}  // namespace sw
