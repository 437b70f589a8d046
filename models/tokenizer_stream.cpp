#include "models/tokenizer.h"
#include "models/unicode.h"

namespace quant {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

std::string Utf8Stream::push(const std::string& bytes) {
    pending_ += bytes;
    std::string shown;
    const char* at = pending_.data();
    const char* end = at + pending_.size();
    while (at != end) {
        Utf8 c = scan_utf8(at, end);
        if (c.valid()) {
            shown.append(at, c.matched);
        } else if (c.matched != 0 && at + c.matched == end) {
            break;  // unfinished
        } else {
            shown += kReplacement;
        }
        at += c.matched != 0 ? c.matched : 1;
    }
    pending_.erase(0, static_cast<size_t>(at - pending_.data()));
    return shown;
}

std::string Utf8Stream::flush() {
    std::string shown = pending_.empty() ? "" : kReplacement;
    pending_.clear();
    return shown;
}

}  // namespace quant
