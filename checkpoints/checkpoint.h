// What a checkpoint holds: metadata and named tensors, the same for every file kind. Names and conventions are
// GGUF's ("blk.0.attn_q.weight"; q and k rows of architecture llama in adjacent-pair order), whatever the file's.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/file.h"
#include "checkpoints/metadata.h"
#include "formats/layout.h"

namespace quant {

struct TensorInfo {
    std::string name;
    Format format;
    int64_t rows = 0, cols = 0;  // a vector of n values is rows = n, cols = 1 (F32, F16, BF16 only)
    bool vector = false;
    int64_t head_rows = 0;                               // see WeightView
    size_t file = 0;                                     // which of the checkpoint's files
    uint64_t codes_at = 0, scales_at = 0, zeros_at = 0;  // byte offsets there; sizes follow from the format
    const Layout* layout = nullptr;                      // of the tiles at codes_at, if it is packed
};

class Checkpoint {
  public:
    Metadata metadata;
    std::vector<TensorInfo> tensors;  // every tensor's bytes were checked to lie inside its file
    std::vector<std::unique_ptr<File>> files;
    std::string kind;  // "GGUF" | "Hugging Face"
    uint64_t tensor_bytes() const;

    const TensorInfo* find(const std::string& name) const;  // null if absent; O(log n)

    // The tensor's bytes; `scratch` holds them when the file is not mapped.
    WeightView view(const TensorInfo& t, std::vector<uint8_t>& scratch) const;
    std::vector<float> values(const TensorInfo& t) const;  // [rows, cols], decoded
    bool mapped(const TensorInfo& t) const;
    void release(const TensorInfo& t) const;  // its mapped pages were consumed
    void index();                             // after `tensors` is filled; duplicate names are QUANT_ERR_CORRUPT

  private:
    std::vector<size_t> by_name_;
};

// A GGUF file or a Hugging Face directory, told apart by what is there. Throws Error.
std::unique_ptr<Checkpoint> open_checkpoint(const std::string& path, bool map);
std::unique_ptr<Checkpoint> read_gguf(std::unique_ptr<File> file);
std::unique_ptr<Checkpoint> read_hugging_face(const std::string& directory, bool map);

}  // namespace quant
