// Writes a GGUF v3 file, tensor by tensor, so that only one tensor need be in memory. The file appears under its name
// only when it is complete: until then it is NAME.partial, removed if the writer is destroyed before finish().
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/metadata.h"
#include "formats/format.h"

namespace quant {

// How a format goes into the file. Formats that a GGUF type holds exactly (f32, f16, bf16, s8:g32:f16,
// u4:g32:f16:z8, u4:g32:f16:min, and ggml storage as it is) become that type; the others become plain tensors NAME
// (codes, I8, [rows, bytes of a row]), NAME.scales, NAME.zeros, with the tensor's name, its format's name and its
// number of columns in the metadata arrays quant.tensors, quant.formats and quant.columns.
struct PlannedTensor {
    std::string name;
    Format format;
    int64_t rows, cols;
    bool vector;  // 1-D in the file (rows values)
};

class GgufWriter {
  public:
    // Writes the header; the tensors follow in the order of `tensors`. Throws Error.
    GgufWriter(const std::string& path, const Metadata& metadata, std::vector<PlannedTensor> tensors);
    ~GgufWriter();
    GgufWriter(const GgufWriter&) = delete;
    GgufWriter& operator=(const GgufWriter&) = delete;

    // The next tensor's planar arrays (or ggml blocks in `codes`).
    void tensor(const uint8_t* codes, const uint8_t* scales, const uint8_t* zeros);
    void finish();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace quant
