/// @file
/// HTML and SVG text: escaping, and a table.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ttt::examples {

/// `text` as character data or as a quoted attribute. Control characters, which neither HTML nor
/// XML can hold, become the replacement character; so does every byte that is not UTF-8.
inline std::string escape(std::string_view text) {
  static constexpr const char* replacement = "\xEF\xBF\xBD";
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t length = byte < 0x80                    ? 1
                               : byte >= 0xC2 && byte <= 0xDF ? 2
                               : byte >= 0xE0 && byte <= 0xEF ? 3
                               : byte >= 0xF0 && byte <= 0xF4 ? 4
                                                              : 0;
    bool valid = length > 0 && i + length <= text.size();
    for (std::size_t j = 1; valid && j < length; ++j)
      valid = (static_cast<unsigned char>(text[i + j]) & 0xC0) == 0x80;
    if (valid && length > 2) {  // overlong forms, surrogates, beyond U+10FFFF
      const auto second = static_cast<unsigned char>(text[i + 1]);
      valid = !(byte == 0xE0 && second < 0xA0) && !(byte == 0xED && second > 0x9F) &&
              !(byte == 0xF0 && second < 0x90) && !(byte == 0xF4 && second > 0x8F);
    }
    if (!valid || (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) {
      out += replacement;
      ++i;
      continue;
    }
    switch (byte) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out.append(text.substr(i, length));
    }
    i += length;
  }
  return out;
}

/// A table that scrolls sideways where the page is narrow. Cells are escaped; the first
/// `text_columns` columns are aligned left, the others right.
inline std::string html_table(const std::vector<std::string>& header,
                              const std::vector<std::vector<std::string>>& rows,
                              std::size_t text_columns = 1) {
  auto row_of = [&](const std::vector<std::string>& cells, const std::string& tag) {
    std::string out = "<tr>";
    for (std::size_t i = 0; i < cells.size(); ++i)
      out += "<" + tag + (i < text_columns ? " class=\"text\">" : ">") + escape(cells[i]) + "</" +
             tag + ">";
    return out + "</tr>\n";
  };
  std::string out = "<div class=\"wide\"><table>\n<thead>" + row_of(header, "th") + "</thead>\n";
  out += "<tbody>\n";
  for (const auto& row : rows) out += row_of(row, "td");
  return out + "</tbody></table></div>\n";
}

}  // namespace ttt::examples
