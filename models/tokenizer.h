// Text <-> token ids. Built from GGUF's tokenizer metadata, which checkpoints/ also makes from tokenizer.json.
//   tokenizer.ggml.model  "llama": SentencePiece BPE with byte fallback, merges by score (or, where
//                          tokenizer.ggml.merges is present too, by merge rank, as tokenizer.json has it)
//                         "gpt2": byte-level BPE, merges by rank, text split by tokenizer.ggml.pre
//   tokenizer.ggml.pre    "llama-bpe" (Llama 3), "qwen2", "gpt-2" / "default"
//   tokenizer.ggml.tokens, .scores, .token_type, .merges, .bos_token_id, .eos_token_id, .eot_token_id,
//   .eos_token_ids (ours: every id that ends generation), .unknown_token_id, .add_bos_token, .add_eos_token,
//   .add_space_prefix, .ignore_merges
// The text is first cut at added tokens (control tokens only if parse_special), longest match first.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/metadata.h"

namespace quant {

class Tokenizer {
  public:
    // Null if the metadata has no tokenizer. Throws Error (CORRUPT if it contradicts itself or `vocabulary`, the rows of
    // the embedding; UNSUPPORTED names a model or splitting rule that is not implemented).
    static std::unique_ptr<Tokenizer> create(const Metadata& metadata, int64_t vocabulary);
    virtual ~Tokenizer() = default;

    // add_special: BOS (and EOS) as the metadata says.
    std::vector<int32_t> encode(const std::string& text, bool add_special, bool parse_special) const;
    // Bytes of one token as they stand in running text (a leading space kept; special tokens empty unless `special`).
    std::string piece(int32_t token, bool special) const;
    // Bytes of a sequence: the pieces, less the space that encode put in front.
    std::string decode(const std::vector<int32_t>& tokens, bool special) const;

    int32_t bos() const;  // -1 = none
    int32_t eos() const;
    bool is_end(int32_t token) const;      // end of text or of turn
    bool is_special(int32_t token) const;  // control or unknown
    int64_t size() const;
};

// Holds back the bytes of a UTF-8 character until it is complete; invalid bytes become U+FFFD.
class Utf8Stream {
  public:
    std::string push(const std::string& bytes);  // what can be shown now
    std::string flush();                         // at the end: an unfinished character becomes U+FFFD

  private:
    std::string pending_;
};

}  // namespace quant
