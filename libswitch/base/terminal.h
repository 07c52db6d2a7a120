// What a terminal has room for.
#pragma once

#include <string>
#include <string_view>

namespace sw {

/// Columns of the terminal on `fd`, as it is now; 80 where there is none or it does not tell.
int terminal_columns(int fd);

/// `text`, of one column a byte, cut to what a line of `columns` holds without wrapping: the last
/// column stays free, since a full line moves some terminals to the next.
std::string_view fit_columns(std::string_view text, int columns);

/// "[#####     ]  42% text" for a line of `columns`: the bar takes what the text leaves, 24 columns
/// at most, and goes first; then the text is cut.
std::string progress_bar(double share, std::string_view text, int columns);

}  // namespace sw
