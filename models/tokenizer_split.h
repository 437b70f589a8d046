// Splitting text into the pieces that byte-level BPE works on, as the models' regular expressions split it:
//   gpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   llama3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
//           |\s+(?!\S)|\s+
//   qwen2   as llama3, but \p{N} instead of \p{N}{1,3}
// A byte that is not valid UTF-8 counts as a character that is no letter, number or space.
#pragma once
#include <string_view>

namespace quant {

enum class SplitRule { gpt2, llama3, qwen2 };

// Length of the first piece of `text`, which is not empty.
size_t first_piece(SplitRule rule, std::string_view text);

}  // namespace quant
