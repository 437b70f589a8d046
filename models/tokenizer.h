// Text <-> token ids. Built from GGUF's tokenizer metadata, which checkpoints/ also makes from tokenizer.json.
//   tokenizer.ggml.model  "llama": SentencePiece BPE with byte fallback, merges by score (or, where
//                          tokenizer.ggml.merges is present too, by merge rank, as tokenizer.json has it)
//                         "gpt2": byte-level BPE, merges by rank, text split by tokenizer.ggml.pre
//   tokenizer.ggml.pre    "llama-bpe" (Llama 3), "qwen2", "gpt-2" / "default": tokenizer_split.h
//   tokenizer.ggml.tokens, .scores, .token_type, .merges, .bos_token_id, .eos_token_id, .eot_token_id,
//   .eos_token_ids (ours: every id that ends generation), .unknown_token_id, .add_bos_token, .add_eos_token,
//   .add_space_prefix, .space_prefix_scheme (ours: "always" or "first", as Hugging Face's Metaspace has it),
//   .ignore_merges
// The text is first cut at added tokens (user-defined ones always; control and unknown tokens only if parse_special):
// at each place the longest that stands there. The space that add_space_prefix asks for goes before every stretch of
// text between them; with a space_prefix_scheme, only before one that does not start with a space, and with "first"
// only where the text starts.
//
// Text is taken as it is: there is no Unicode normalisation, also for Qwen2, whose original normalises to NFC first.
// Composed text (what keyboards and almost all files hold) gives the same ids; decomposed text gives other ids of the
// same meaning and decodes to exactly what went in. Bytes that are not UTF-8 become their byte tokens and decode back.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/metadata.h"

namespace quant {

class Tokenizer {
  public:
    // Null if the metadata has no tokenizer. Throws Error (CORRUPT if it contradicts itself or `vocabulary`, the rows
    // of the embedding; UNSUPPORTED names a model or splitting rule that is not implemented).
    static std::unique_ptr<Tokenizer> create(const Metadata& metadata, int64_t vocabulary);
    ~Tokenizer();

    // add_special: BOS (and EOS) as the metadata says. Throws Error (UNSUPPORTED) if the text holds a byte for which
    // the vocabulary has neither a piece nor an unknown token.
    std::vector<int32_t> encode(const std::string& text, bool add_special, bool parse_special) const;
    // Bytes of one token as they stand in running text (a leading space kept; special tokens empty unless `special`).
    std::string piece(int32_t token, bool special) const;
    // Bytes of a sequence: the pieces, less the space that encode put in front.
    std::string decode(const std::vector<int32_t>& tokens, bool special) const;

    int32_t bos() const;  // -1 = none
    int32_t eos() const;
    bool adds_bos() const;                 // encode with add_special puts BOS in front
    bool is_end(int32_t token) const;      // end of text or of turn
    bool is_special(int32_t token) const;  // control or unknown
    int64_t size() const;

    struct Parts;

  private:
    explicit Tokenizer(std::unique_ptr<const Parts> parts);
    std::unique_ptr<const Parts> parts_;
};

// Holds back the bytes of a UTF-8 character until it is complete; what can never become one is U+FFFD (one for each
// longest beginning of a character, as Unicode recommends).
class Utf8Stream {
  public:
    std::string push(const std::string& bytes);  // what can be shown now
    std::string flush();                         // at the end: an unfinished character becomes U+FFFD

  private:
    std::string pending_;
};

}  // namespace quant
