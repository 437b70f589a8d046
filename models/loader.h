// Puts a checkpoint's tensors on a device: chooses each weight's format, quantizes if a scheme asks for it, packs it
// into the layout of the kernel that will run it, in parallel and straight from the mapped file.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "core/executor.h"
#include "core/threads.h"
#include "models/llama.h"

namespace quant {

// What the weights become. No scheme: as stored.
struct WeightChoice {
    std::optional<Scheme> scheme, head;
};
// The format and activation kind of a linear's weight under that choice.
Scheme choose_scheme(const Checkpoint& checkpoint, const TensorInfo& tensor, const WeightChoice& choice, bool head);
// True if a matrix in format `a` has exactly the values and codes of one in `b`: they differ in storage at most.
bool same_codes(const Format& a, const Format& b);

// One tensor of the contract.
struct ContractLine {
    std::string tensor, weights, activations, kernel, device;
    bool exact = true;
};

struct LinearTotals {
    uint64_t bytes = 0;    // on the device
    uint64_t weights = 0;  // rows x columns
};

class WeightLoader : public WeightSource {
  public:
    WeightLoader(const Checkpoint& checkpoint, const LlamaConfig& config, const WeightChoice& choice, Stage& stage);
    ~WeightLoader() override;
    const Weight* table(const std::string& tensor) override;
    const Weight* vector(const std::string& tensor) override;
    const Weight* linear(const std::string& name, bool head) override;
    const Weight* rope_frequencies() override;
    const Weight* merge(const std::vector<const Weight*>& parts);

    // Loads every weight that the stage's (fused) graph uses into stage.buffers. `progress` is called on this thread
    // with the bytes done so far, at least every 50 ms; it throws to cancel.
    void load(ThreadPool& threads, const std::function<void(uint64_t bytes)>& progress);
    uint64_t source_bytes() const;  // of what load() will read

    std::vector<ContractLine> contract() const;  // after load()
    LinearTotals linear_totals() const;          // after load()

  private:
    struct Part;
    struct Entry;
    Entry& add(const std::string& name, const Format& format, int64_t rows, int64_t cols);
    Entry& entry(const Weight* w) const;
    static uint64_t linear_source_bytes(const Entry& e);
    const Layout* layout_of(const Entry& e) const;
    Slice allocate(size_t bytes);
    bool adopt(Slice& slice, const uint8_t* host, size_t bytes);  // false: this device cannot
    bool adopt_linear(Entry& e);
    void load_bias(Entry& e);
    void store_row(const Weight& w, int64_t row, const WeightView& one);
    void load_linear(Entry& e, ThreadPool& threads, const std::function<void(uint64_t)>& progress);
    void load_table(Entry& e);
    void load_vector(Entry& e);

    const Checkpoint& checkpoint_;
    const LlamaConfig& config_;
    const WeightChoice& choice_;
    Stage& stage_;
    std::vector<std::unique_ptr<Entry>> entries_;
};

}  // namespace quant
