// GGUF versions 2 and 3, little-endian:
//   "GGUF"  version:u32  tensors:u64  pairs:u64
//   pairs:    key:string  type:u32  value            string: length:u64 bytes;  array: type:u32 length:u64 elements
//   tensors:  name:string  dimensions:u32  sizes:u64[dimensions], innermost first  type:u32  offset:u64
//   padding to the alignment, then the data that the offsets count from
// Formats that no GGUF type holds are three plain tensors each: see gguf_writer.h.
#include <algorithm>
#include <cstring>
#include <limits>
#include <unordered_map>

#include "checkpoints/checkpoint.h"
#include "checkpoints/gguf_types.h"
#include "checkpoints/ranges.h"
#include "formats/error.h"

namespace quant {
namespace {

enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
const size_t value_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};  // the least that a value takes in the file

struct RawTensor {
    std::string name;
    uint32_t type = 0, dimensions = 0;
    int64_t sizes[4] = {1, 1, 1, 1};
    uint64_t offset = 0;
};

// Reads values in order, through a window where the file is not mapped.
class Cursor {
  public:
    explicit Cursor(const File& file) : file_(file) {}

    const uint8_t* bytes(uint64_t n) {
        if (n > file_.size() - at_) corrupt("the file is truncated, or a length in it is wrong");
        if (n > end_ - at_) refill(n);
        const uint8_t* const p = window_ + static_cast<size_t>(at_ - begin_);
        at_ += n;
        return p;
    }
    template <class T>
    T value() {
        T v;
        std::memcpy(&v, bytes(sizeof(T)), sizeof(T));
        return v;
    }
    std::string text() {
        const uint64_t n = value<uint64_t>();
        const uint8_t* const p = bytes(n);
        return std::string(reinterpret_cast<const char*>(p), static_cast<size_t>(n));
    }
    // A number of things of at least `least` bytes each: one that the rest of the file cannot hold is refused.
    size_t count(size_t least, const char* what) {
        const uint64_t n = value<uint64_t>();
        if (n > (file_.size() - at_) / least)
            corrupt("it claims " + std::to_string(n) + " " + what + ", more than fit in the file");
        return static_cast<size_t>(n);
    }
    uint64_t position() const { return at_; }

    [[noreturn]] void corrupt(const std::string& what) const {
        fail(QUANT_ERR_CORRUPT, file_.name() + ": " + what + " (near byte " + std::to_string(at_) + ")");
    }

  private:
    void refill(uint64_t n) {
        const uint64_t most = file_.mapping() ? file_.size() : uint64_t{1} << 20;
        const uint64_t length = std::min(std::max(n, most), file_.size() - at_);
        if (length > std::numeric_limits<size_t>::max()) corrupt("it is too large for this machine");
        window_ = file_.at(at_, static_cast<size_t>(length), scratch_);
        begin_ = at_;
        end_ = at_ + length;
    }

    const File& file_;
    std::vector<uint8_t> scratch_;
    const uint8_t* window_ = nullptr;
    uint64_t at_ = 0, begin_ = 0, end_ = 0;  // the window holds [begin, end)
};

uint32_t value_type(Cursor& in, const std::string& key) {
    const uint32_t type = in.value<uint32_t>();
    if (type > f64) in.corrupt("metadata key " + key + " has the unknown type " + std::to_string(type));
    return type;
}

template <class T, class Out>
std::vector<Out> numbers(Cursor& in, size_t n) {
    const uint8_t* from = in.bytes(uint64_t{n} * sizeof(T));
    std::vector<Out> out(n);
    for (size_t i = 0; i < n; ++i) {
        T v;
        std::memcpy(&v, from + i * sizeof(T), sizeof(T));
        out[i] = static_cast<Out>(v);
    }
    return out;
}

MetadataValue array_value(Cursor& in, const std::string& key) {
    const uint32_t type = value_type(in, key);
    if (type == array) in.corrupt("metadata key " + key + " is an array of arrays, which is not supported");
    const size_t n = in.count(value_bytes[type], ("values of metadata key " + key).c_str());
    switch (type) {
        case u8:
            return numbers<uint8_t, int64_t>(in, n);
        case i8:
            return numbers<int8_t, int64_t>(in, n);
        case boolean:
            return numbers<uint8_t, int64_t>(in, n);
        case u16:
            return numbers<uint16_t, int64_t>(in, n);
        case i16:
            return numbers<int16_t, int64_t>(in, n);
        case u32:
            return numbers<uint32_t, int64_t>(in, n);
        case i32:
            return numbers<int32_t, int64_t>(in, n);
        case i64:
            return numbers<int64_t, int64_t>(in, n);
        case f32:
            return numbers<float, double>(in, n);
        case f64:
            return numbers<double, double>(in, n);
        case u64: {
            std::vector<int64_t> out = numbers<uint64_t, int64_t>(in, n);
            if (std::any_of(out.begin(), out.end(), [](int64_t v) { return v < 0; }))
                in.corrupt("metadata key " + key + " holds a number beyond 63 bits");
            return out;
        }
        default:
            break;
    }
    std::vector<std::string> texts;
    texts.reserve(n);
    for (size_t i = 0; i < n; ++i) texts.push_back(in.text());
    return texts;
}

MetadataValue metadata_value(Cursor& in, const std::string& key) {
    switch (value_type(in, key)) {
        case u8:
            return uint64_t{in.value<uint8_t>()};
        case u16:
            return uint64_t{in.value<uint16_t>()};
        case u32:
            return uint64_t{in.value<uint32_t>()};
        case u64:
            return in.value<uint64_t>();
        case i8:
            return int64_t{in.value<int8_t>()};
        case i16:
            return int64_t{in.value<int16_t>()};
        case i32:
            return int64_t{in.value<int32_t>()};
        case i64:
            return in.value<int64_t>();
        case f32:
            return double{in.value<float>()};
        case f64:
            return in.value<double>();
        case boolean:
            return in.value<uint8_t>() != 0;
        case string:
            return in.text();
        default:
            return array_value(in, key);
    }
}

RawTensor raw_tensor(Cursor& in) {
    RawTensor t;
    t.name = in.text();
    t.dimensions = in.value<uint32_t>();
    if (t.dimensions < 1 || t.dimensions > 4)
        in.corrupt("tensor " + t.name + " has " + std::to_string(t.dimensions) + " dimensions");
    for (uint32_t d = 0; d < t.dimensions; ++d) {
        const uint64_t size = in.value<uint64_t>();
        if (size == 0 || size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
            in.corrupt("tensor " + t.name + " has a dimension of " + std::to_string(size));
        t.sizes[d] = static_cast<int64_t>(size);
    }
    t.type = in.value<uint32_t>();
    t.offset = in.value<uint64_t>();
    return t;
}

// Tensors of the file become tensors of the checkpoint.
class TensorTable {
  public:
    TensorTable(const File& file, std::vector<RawTensor> raw, uint64_t data, const Metadata& metadata)
        : file_(file), raw_(std::move(raw)), data_(data), used_(file.name()) {
        for (size_t i = 0; i < raw_.size(); ++i)
            if (!by_name_.emplace(raw_[i].name, i).second) corrupt(raw_[i].name, "is there twice");
        taken_.resize(raw_.size());
        read_own(metadata);
        for (size_t i = 0; i < raw_.size(); ++i)
            if (!taken_[i]) tensors_.push_back(native(raw_[i]));
        used_.check();
    }
    std::vector<TensorInfo> take() { return std::move(tensors_); }

  private:
    [[noreturn]] void corrupt(const std::string& tensor, const std::string& what) const {
        fail(QUANT_ERR_CORRUPT, file_.name() + ": tensor " + tensor + " " + what);
    }

    // Where the bytes of a tensor lie; they are inside the file and nobody else's.
    uint64_t place(const RawTensor& t, uint64_t bytes) {
        const uint64_t room = file_.size() - data_;
        if (t.offset > room || bytes > room - t.offset)
            corrupt(t.name, "reaches beyond the end of the file; it is truncated");
        used_.add(data_ + t.offset, bytes, t.name);
        return data_ + t.offset;
    }

    TensorInfo native(const RawTensor& t) {
        TensorInfo out;
        out.name = t.name;
        if (!gguf_type_format(t.type, &out.format)) {
            const char* const name = gguf_type_name(t.type);
            fail(QUANT_ERR_UNSUPPORTED, file_.name() + ": tensor " + t.name + " has the type " +
                                            (name ? name : "number " + std::to_string(t.type)) +
                                            ", which is not supported; use a file in another quantization");
        }
        if (t.sizes[2] != 1 || t.sizes[3] != 1)
            fail(QUANT_ERR_UNSUPPORTED,
                 file_.name() + ": tensor " + t.name + " has more than two dimensions, which is not supported");
        out.vector = t.dimensions == 1;
        out.rows = out.vector ? t.sizes[0] : t.sizes[1];
        out.cols = out.vector ? 1 : t.sizes[0];
        if (out.vector && !is_float(out.format.element))
            corrupt(t.name, "is a quantized vector, which is not supported");
        const int64_t block = out.format.super_group != 0 ? out.format.super_group : out.format.group;
        if (block != 0 && out.cols % block != 0)
            corrupt(t.name, "has rows of " + std::to_string(out.cols) + " values, not a multiple of its block's " +
                                std::to_string(block));
        check_matrix_size(file_, t.name, out.rows, out.cols);
        out.codes_at = place(t, codes_bytes(out.format, out.rows, out.cols));
        return out;
    }

    // The formats of our own: quant.tensors[i] is in quant.formats[i] and has quant.columns[i] columns; packed, it has
    // quant.rows[i] rows in the layout quant.layouts[i] (0 and "": not packed; absent: nothing is packed).
    void read_own(const Metadata& m) {
        if (!m.has("quant.tensors")) return;
        const auto* const names = m.strings("quant.tensors");
        const auto* const formats = m.strings("quant.formats");
        const auto* const columns = m.integers("quant.columns");
        const auto* const layouts = m.strings("quant.layouts");
        const auto* const rows = m.integers("quant.rows");
        const size_t n = names ? names->size() : 0;
        if (!names || !formats || !columns || n != formats->size() || n != columns->size() ||
            m.has("quant.layouts") != (layouts && rows && layouts->size() == n && rows->size() == n))
            fail(QUANT_ERR_CORRUPT, file_.name() +
                                        ": the arrays quant.tensors, quant.formats, quant.columns, "
                                        "quant.rows and quant.layouts do not match");
        for (size_t i = 0; i < n; ++i) {
            if (!layouts || (*layouts)[i].empty())
                read_planar((*names)[i], (*formats)[i], (*columns)[i]);
            else
                read_packed((*names)[i], (*formats)[i], (*rows)[i], (*columns)[i], (*layouts)[i]);
        }
    }

    TensorInfo own(const std::string& name, const std::string& format) const {
        TensorInfo t;
        t.name = name;
        if (!format_parse(format, &t.format) || t.format.storage != Storage::planar)
            fail(QUANT_ERR_UNSUPPORTED, file_.name() + ": tensor " + name + " has the unknown format " + format);
        return t;
    }

    void read_packed(const std::string& name, const std::string& format, int64_t rows, int64_t columns,
                     const std::string& layout) {
        TensorInfo t = own(name, format);
        t.layout = find_layout(layout);
        if (!t.layout || !layout_keeps(*t.layout, t.format))
            fail(QUANT_ERR_UNSUPPORTED, file_.name() + ": tensor " + name + " has the unknown layout " + layout +
                                            "; quantize the model again without packing it");
        check_matrix_size(file_, name, rows, columns);
        t.rows = rows;
        t.cols = columns;
        t.codes_at = place_array(name, gguf_i8, 1, layout_bytes(*t.layout, t.format, rows, columns));
        tensors_.push_back(std::move(t));
    }

    void read_planar(const std::string& name, const std::string& format, int64_t columns) {
        TensorInfo t = own(name, format);
        if (is_float(t.format.element)) corrupt(name, "has no format of its own: " + format);
        const RawTensor& codes = part(name);
        t.rows = codes.sizes[1];
        t.cols = columns;
        check_matrix_size(file_, name, t.rows, t.cols);
        if (codes.type != gguf_i8 || codes.sizes[2] != 1 || codes.sizes[3] != 1 ||
            static_cast<uint64_t>(codes.sizes[0]) != codes_row_bytes(t.format, t.cols))
            corrupt(name, "does not have the shape that its format " + format + " needs");
        t.codes_at = place(codes, codes_bytes(t.format, t.rows, t.cols));
        const uint32_t scale = t.format.scale == FloatType::f32   ? gguf_f32
                               : t.format.scale == FloatType::f16 ? gguf_f16
                                                                  : gguf_bf16;
        t.scales_at = place_array(name + ".scales", scale, float_type_bytes(t.format.scale),
                                  scales_bytes(t.format, t.rows, t.cols));
        if (t.format.zero == Zero::integer)
            t.zeros_at = place_array(name + ".zeros", gguf_i8, 1, zeros_bytes(t.format, t.rows, t.cols));
        if (t.format.zero == Zero::minimum)
            t.zeros_at = place_array(name + ".zeros", scale, float_type_bytes(t.format.scale),
                                     zeros_bytes(t.format, t.rows, t.cols));
        tensors_.push_back(std::move(t));
    }

    uint64_t place_array(const std::string& name, uint32_t type, size_t value_size, size_t bytes) {
        const RawTensor& t = part(name);
        uint64_t values = 1;
        for (const int64_t size : t.sizes) {
            if (static_cast<uint64_t>(size) > file_.size() / values) corrupt(name, "is larger than the file");
            values *= static_cast<uint64_t>(size);
        }
        if (t.type != type || values != bytes / value_size)
            corrupt(name, "does not have the shape that its format needs");
        return place(t, bytes);
    }

    // A tensor of the file that is a part of one of ours.
    const RawTensor& part(const std::string& name) {
        const auto found = by_name_.find(name);
        if (found == by_name_.end()) corrupt(name, "is missing");
        if (taken_[found->second]) corrupt(name, "is named twice by the metadata");
        taken_[found->second] = true;
        return raw_[found->second];
    }

    const File& file_;
    std::vector<RawTensor> raw_;
    uint64_t data_;
    Ranges used_;
    std::unordered_map<std::string, size_t> by_name_;
    std::vector<bool> taken_;
    std::vector<TensorInfo> tensors_;
};

}  // namespace

std::unique_ptr<Checkpoint> read_gguf(std::unique_ptr<File> file) {
    Cursor in(*file);
    if (file->size() < 24 || std::memcmp(in.bytes(4), "GGUF", 4) != 0)
        fail(QUANT_ERR_CORRUPT, file->name() + " is not a GGUF file");
    const uint32_t version = in.value<uint32_t>();
    if (version != 2 && version != 3)
        fail(QUANT_ERR_UNSUPPORTED, file->name() + (version != 0 && (version & 0xffff) == 0
                                                        ? " is a big-endian GGUF file, which is not supported"
                                                        : " is GGUF version " + std::to_string(version) +
                                                              ", which is not supported (2 and 3 are)"));
    const size_t tensors = in.count(32, "tensors"), pairs = in.count(13, "metadata keys");

    auto checkpoint = std::make_unique<Checkpoint>();
    checkpoint->kind = "GGUF";
    Metadata& metadata = checkpoint->metadata;
    for (size_t i = 0; i < pairs; ++i) {
        const std::string key = in.text();
        if (metadata.has(key)) in.corrupt("metadata key " + key + " is there twice");
        metadata.set(key, metadata_value(in, key));
    }
    const int64_t alignment = metadata.integer("general.alignment", 32);
    if (alignment < 8 || alignment > 1 << 20 || (alignment & (alignment - 1)) != 0)
        in.corrupt("general.alignment is " + std::to_string(alignment) + ", not a power of two from 8 on");

    std::vector<RawTensor> raw;
    raw.reserve(tensors);
    for (size_t i = 0; i < tensors; ++i) raw.push_back(raw_tensor(in));
    const uint64_t step = static_cast<uint64_t>(alignment);
    for (const RawTensor& t : raw)
        if (t.offset % step != 0) in.corrupt("tensor " + t.name + " is not aligned as general.alignment says");
    const uint64_t data = std::min((in.position() + step - 1) / step * step, file->size());
    checkpoint->tensors = TensorTable(*file, std::move(raw), data, metadata).take();
    for (const char* key :
         {"quant.tensors", "quant.formats", "quant.columns", "quant.rows", "quant.layouts", "general.alignment"})
        metadata.erase(key);
    checkpoint->index();
    checkpoint->files.push_back(std::move(file));
    return checkpoint;
}

}  // namespace quant
