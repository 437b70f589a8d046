// Writes a GGUF v3 file, tensor by tensor, so that only one tensor need be in memory. The file appears under its name
// only when it is complete: until then it is NAME.partial, removed if the writer is destroyed before finish().
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/metadata.h"
#include "formats/layout.h"

namespace quant {

// How a format goes into the file. Formats that a GGUF type holds exactly (f32, f16, bf16, s8:g32:f16,
// u4:g32:f16:z8, u4:g32:f16:min, and ggml storage as it is) become that type; the others become plain tensors NAME
// (codes, I8, [rows, bytes of a row]), NAME.scales, NAME.zeros, with the tensor's name, its format's name and its
// number of columns in the metadata arrays quant.tensors, quant.formats and quant.columns.
// A tensor with a layout is packed: its tiles are one tensor NAME (I8, [tiles, bytes of a tile]), listed likewise, and
// in quant.layouts and quant.rows. Its format must be one that layout_keeps. Every tensor then starts at a multiple
// of 64.
struct PlannedTensor {
    std::string name;
    Format format;
    int64_t rows, cols;
    bool vector = false;  // 1-D in the file (rows values)
    const Layout* layout = nullptr;
};

class GgufWriter {
  public:
    // Writes the header; the tensors follow in the order of `tensors`. Throws Error.
    GgufWriter(const std::string& path, const Metadata& metadata, std::vector<PlannedTensor> tensors);
    ~GgufWriter();
    GgufWriter(const GgufWriter&) = delete;
    GgufWriter& operator=(const GgufWriter&) = delete;

    // The next tensor's planar arrays (or, in `codes`, its ggml blocks or tiles).
    void tensor(const uint8_t* codes, const uint8_t* scales, const uint8_t* zeros);
    void finish();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace quant
