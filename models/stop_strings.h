// Cuts a stream of text before the first of some strings that appears in it.
#pragma once
#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace quant {

class StopStrings {
  public:
    StopStrings(const char* const* strings, size_t n) {
        for (size_t i = 0; i < n; ++i)
            if (strings[i] && *strings[i]) strings_.emplace_back(strings[i]);
    }

    // What can be shown now: text that may be the start of a stop string is held back.
    std::string push(const std::string& text, bool* stopped) {
        held_ += text;
        size_t cut = std::string::npos;
        for (const std::string& s : strings_) cut = std::min(cut, held_.find(s));
        *stopped = cut != std::string::npos;
        if (!*stopped) cut = held_.size() - longest_start();
        std::string out = held_.substr(0, cut);
        held_.erase(0, cut);
        return out;
    }
    std::string flush() { return std::move(held_); }

  private:
    // Length of the longest end of the held text that starts a stop string.
    size_t longest_start() const {
        size_t longest = 0;
        for (const std::string& s : strings_)
            for (size_t n = std::min(s.size() - 1, held_.size()); n > longest; --n)
                if (held_.compare(held_.size() - n, n, s, 0, n) == 0) longest = n;
        return longest;
    }
    std::vector<std::string> strings_;
    std::string held_;
};

}  // namespace quant
