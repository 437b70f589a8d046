#include "checkpoints/gguf_writer.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>

#include "checkpoints/gguf_types.h"
#include "checkpoints/system_file.h"
#include "formats/encode.h"
#include "formats/error.h"

namespace quant {
namespace {

constexpr size_t block_buffer_bytes = size_t{1} << 20;

// Types of metadata values in the file.
enum ValueType : uint32_t { u32 = 4, i32 = 5, f32 = 6, boolean = 7, string = 8, array = 9, u64 = 10, i64 = 11 };

uint32_t float_type_id(FloatType t) {
    return t == FloatType::f32 ? gguf_f32 : t == FloatType::f16 ? gguf_f16 : gguf_bf16;
}

bool fits_i32(int64_t v) {
    return v >= std::numeric_limits<int32_t>::min() && v <= std::numeric_limits<int32_t>::max();
}

// The header's bytes.
class Bytes {
  public:
    template <class T>
    void value(T v) {
        const auto* const p = reinterpret_cast<const uint8_t*>(&v);
        bytes_.insert(bytes_.end(), p, p + sizeof(T));
    }
    void text(const std::string& s) {
        value(static_cast<uint64_t>(s.size()));
        bytes_.insert(bytes_.end(), s.begin(), s.end());
    }
    // Other readers expect u32 for every count and id, f32 for every other number, i32 in arrays.
    void typed(uint64_t v) {
        if (v <= std::numeric_limits<uint32_t>::max()) {
            value<uint32_t>(u32);
            value(static_cast<uint32_t>(v));
        } else {
            value<uint32_t>(u64);
            value(v);
        }
    }
    void typed(int64_t v) {
        if (v >= 0) return typed(static_cast<uint64_t>(v));
        value<uint32_t>(fits_i32(v) ? i32 : i64);
        integer(v, fits_i32(v));
    }
    void typed(double v) {
        value<uint32_t>(f32);
        value(static_cast<float>(v));
    }
    void typed(bool v) {
        value<uint32_t>(boolean);
        value(static_cast<uint8_t>(v));
    }
    void typed(const std::string& v) {
        value<uint32_t>(string);
        text(v);
    }
    void typed(const std::vector<int64_t>& v) {
        bool narrow = true;
        for (const int64_t x : v) narrow = narrow && fits_i32(x);
        array_of(narrow ? i32 : i64, v.size());
        for (const int64_t x : v) integer(x, narrow);
    }
    void typed(const std::vector<double>& v) {
        array_of(f32, v.size());
        for (const double x : v) value(static_cast<float>(x));
    }
    void typed(const std::vector<std::string>& v) {
        array_of(string, v.size());
        for (const std::string& x : v) text(x);
    }
    void pad(uint64_t alignment) { bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment); }
    const std::vector<uint8_t>& all() const { return bytes_; }

  private:
    void integer(int64_t v, bool narrow) {
        if (narrow) {
            value(static_cast<int32_t>(v));
        } else {
            value(v);
        }
    }
    void array_of(uint32_t type, size_t n) {
        value<uint32_t>(array);
        value(type);
        value(static_cast<uint64_t>(n));
    }
    std::vector<uint8_t> bytes_;
};

// A tensor as the file lists it.
struct Listed {
    std::string name;
    uint32_t type;
    std::vector<uint64_t> sizes;  // innermost first
    uint64_t bytes;
};

// [rows, groups], or one dimension where that says it.
std::vector<uint64_t> array_sizes(const Format& f, int64_t cols, size_t values) {
    const uint64_t groups = static_cast<uint64_t>(groups_per_row(f, cols));
    if (f.granularity == Granularity::group || f.granularity == Granularity::block) return {groups, values / groups};
    return {values};
}

std::vector<Listed> listed(const PlannedTensor& t, bool native, uint32_t type) {
    const uint64_t rows = static_cast<uint64_t>(t.rows), cols = static_cast<uint64_t>(t.cols);
    const Format& f = t.format;
    if (t.layout) {
        const uint64_t tile = t.layout->tile_bytes(f, t.cols), all = layout_bytes(*t.layout, f, t.rows, t.cols);
        return {{t.name, gguf_i8, {tile, all / tile}, all}};
    }
    const uint64_t codes = codes_bytes(f, t.rows, t.cols);
    const size_t scales = scales_bytes(f, t.rows, t.cols), zeros = zeros_bytes(f, t.rows, t.cols);
    if (native) {
        const std::vector<uint64_t> sizes = t.vector ? std::vector<uint64_t>{rows} : std::vector<uint64_t>{cols, rows};
        return {{t.name, type, sizes, codes + scales + zeros}};
    }
    const size_t value = float_type_bytes(f.scale), zero = f.zero == Zero::integer ? 1 : value;
    std::vector<Listed> out{{t.name, gguf_i8, {codes_row_bytes(f, t.cols), rows}, codes}};
    out.push_back({t.name + ".scales", float_type_id(f.scale), array_sizes(f, t.cols, scales / value), scales});
    if (zeros != 0)
        out.push_back({t.name + ".zeros", f.zero == Zero::integer ? gguf_i8 : float_type_id(f.scale),
                       array_sizes(f, t.cols, zeros / zero), zeros});
    return out;
}

}  // namespace

struct GgufWriter::Impl {
    std::string path, partial;
    std::vector<PlannedTensor> tensors;
    uint64_t alignment = 32;
    size_t next = 0;
    std::FILE* file = nullptr;
    std::vector<uint8_t> blocks;

    ~Impl() {
        if (!file) return;
        std::fclose(file);
        remove_file(partial);
    }
    [[noreturn]] void io_error(const char* what) {
        fail(QUANT_ERR_IO, partial + ": " + what + " (" + system_error_text() + ")");
    }
    void write(const void* bytes, size_t n) {
        errno = 0;
        if (n != 0 && std::fwrite(bytes, 1, n, file) != n) io_error("cannot be written; is the disk full?");
    }
    uint64_t padded(uint64_t bytes) const { return (bytes + alignment - 1) / alignment * alignment; }
    void pad(size_t written) {
        static const uint8_t zeros[64] = {};
        write(zeros, static_cast<size_t>(padded(written) - written));
    }
    void write_padded(const void* bytes, size_t n) {
        write(bytes, n);
        pad(n);
    }
    void write_interleaved(const PlannedTensor& t, const uint8_t* codes, const uint8_t* scales, const uint8_t* zeros);
};

// Rows of a planar format as the blocks of the GGUF type that holds it, a buffer at a time.
void GgufWriter::Impl::write_interleaved(const PlannedTensor& t, const uint8_t* codes, const uint8_t* scales,
                                         const uint8_t* zeros) {
    const size_t code_bytes = codes_row_bytes(t.format, t.cols), scale_bytes = scales_bytes(t.format, 1, t.cols),
                 zero_bytes = zeros_bytes(t.format, 1, t.cols), row_bytes = code_bytes + scale_bytes + zero_bytes;
    const int64_t at_once = static_cast<int64_t>(block_buffer_bytes / row_bytes) + 1;
    blocks.resize(row_bytes * static_cast<size_t>(at_once));
    for (int64_t first = 0; first < t.rows; first += at_once) {
        const int64_t n = first + at_once < t.rows ? at_once : t.rows - first;
        for (int64_t i = 0; i < n; ++i) {
            const size_t row = static_cast<size_t>(first + i);
            interleave_ggml_row(t.format, t.cols, codes + row * code_bytes, scales + row * scale_bytes,
                                zeros ? zeros + row * zero_bytes : nullptr,
                                blocks.data() + static_cast<size_t>(i) * row_bytes);
        }
        write(blocks.data(), row_bytes * static_cast<size_t>(n));
    }
    pad(row_bytes * static_cast<size_t>(t.rows));
}

GgufWriter::GgufWriter(const std::string& path, const Metadata& metadata, std::vector<PlannedTensor> tensors)
    : impl_(std::make_unique<Impl>()) {
    std::vector<Listed> all;
    std::vector<std::string> names, formats, layouts;
    std::vector<int64_t> columns, rows;
    bool packed = false;
    for (const PlannedTensor& t : tensors) {
        uint32_t type = 0;
        const bool native = !t.layout && gguf_format_type(t.format, t.cols, &type);
        packed = packed || t.layout;
        if (!native && (t.vector || t.format.storage == Storage::ggml))
            fail(QUANT_ERR_ARGUMENT, "tensor " + t.name + " cannot be written as " + format_name(t.format));
        for (Listed& l : listed(t, native, type)) all.push_back(std::move(l));
        if (native) continue;
        names.push_back(t.name);
        formats.push_back(format_name(t.format));
        columns.push_back(t.cols);
        layouts.push_back(t.layout ? t.layout->name : "");
        rows.push_back(t.layout ? t.rows : 0);
    }
    Metadata pairs = metadata;
    pairs.erase("general.alignment");
    if (!names.empty()) {
        pairs.set("quant.tensors", std::move(names));
        pairs.set("quant.formats", std::move(formats));
        pairs.set("quant.columns", std::move(columns));
    }
    if (packed) {
        pairs.set("quant.layouts", std::move(layouts));
        pairs.set("quant.rows", std::move(rows));
        impl_->alignment = 64;  // of a cache line: the tiles are used where the file is mapped
        pairs.set("general.alignment", impl_->alignment);
    }

    Bytes header;
    for (const char c : {'G', 'G', 'U', 'F'}) header.value(c);
    header.value(uint32_t{3});
    header.value(static_cast<uint64_t>(all.size()));
    header.value(static_cast<uint64_t>(pairs.all().size()));
    for (const auto& pair : pairs.all()) {
        header.text(pair.first);
        std::visit([&](const auto& v) { header.typed(v); }, pair.second);
    }
    uint64_t offset = 0;
    for (const Listed& l : all) {
        header.text(l.name);
        header.value(static_cast<uint32_t>(l.sizes.size()));
        for (const uint64_t size : l.sizes) header.value(size);
        header.value(l.type);
        header.value(offset);
        offset += impl_->padded(l.bytes);
    }
    header.pad(impl_->alignment);

    impl_->path = path;
    impl_->partial = path + ".partial";
    impl_->tensors = std::move(tensors);
    errno = 0;
    impl_->file = create_file(impl_->partial);
    if (!impl_->file) impl_->io_error("cannot be created");
    impl_->write(header.all().data(), header.all().size());
}

GgufWriter::~GgufWriter() = default;

void GgufWriter::tensor(const uint8_t* codes, const uint8_t* scales, const uint8_t* zeros) {
    if (impl_->next == impl_->tensors.size())
        fail(QUANT_ERR_ARGUMENT, impl_->path + ": more tensors than were planned");
    const PlannedTensor& t = impl_->tensors[impl_->next++];
    if (t.layout) return impl_->write_padded(codes, layout_bytes(*t.layout, t.format, t.rows, t.cols));
    uint32_t type;
    const bool native = gguf_format_type(t.format, t.cols, &type);
    if (native && !is_float(t.format.element) && t.format.storage == Storage::planar)
        return impl_->write_interleaved(t, codes, scales, zeros);
    impl_->write_padded(codes, codes_bytes(t.format, t.rows, t.cols));
    if (native) return;
    impl_->write_padded(scales, scales_bytes(t.format, t.rows, t.cols));
    impl_->write_padded(zeros, zeros_bytes(t.format, t.rows, t.cols));
}

void GgufWriter::finish() {
    if (impl_->next != impl_->tensors.size()) fail(QUANT_ERR_ARGUMENT, impl_->path + ": a planned tensor is missing");
    std::FILE* const file = impl_->file;
    errno = 0;
    if (std::fflush(file) != 0 || std::ferror(file)) impl_->io_error("cannot be written; is the disk full?");
    impl_->file = nullptr;
    if (std::fclose(file) != 0 || !replace_file(impl_->partial, impl_->path)) {
        remove_file(impl_->partial);
        fail(QUANT_ERR_IO, impl_->path + ": cannot be written (" + system_error_text() + ")");
    }
}

}  // namespace quant
