#include "core/executor.h"

#include <algorithm>
#include <tuple>

#include "formats/error.h"

namespace quant {
namespace {

constexpr int max_step_outputs = 128;  // rows with logits in one step: bounds the logits' memory

int bucket(int n) {  // the next power of two
    int b = 1;
    while (b < n) b *= 2;
    return b;
}

}  // namespace

Stage::~Stage() {
    if (backend)
        for (Buffer* b : buffers) backend->release(b);
}

struct Executor::StageState {
    explicit StageState(Backend& backend) : backend(backend) {}
    ~StageState() {
        plans.clear();
        if (arena) backend.release(arena);
    }
    struct Recorded {
        size_t output_at = 0, input_at = 0, choice_at = 0;
        std::unique_ptr<Plan> plan;
    };
    Backend& backend;
    Buffer* arena = nullptr;
    std::map<std::tuple<int, int, int>, Recorded> plans;  // by (rows, outputs, top)
    Recorded* current = nullptr;
};

// The rows of one step and whose they are.
struct Executor::Chunk {
    struct Piece {
        size_t request, first, count;  // tokens [first, first + count) of the request
        int outputs;                   // of its rows
        size_t first_output;           // index of its first output in the request's logits
    };
    std::vector<Piece> pieces;
    std::vector<size_t> done;  // per request: tokens of earlier chunks
    Step step;
    int top = 0;  // Request::top of the one request, if its device chooses
    std::vector<float> logits;
    size_t width(int64_t vocabulary) const { return static_cast<size_t>(top ? 2 * top : vocabulary); }
};

Executor::Executor(std::vector<Stage> stages, int64_t hidden, int64_t vocabulary, size_t max_cache_positions)
    : stages_(std::move(stages)), hidden_cols_(hidden), vocabulary_(vocabulary) {
    std::vector<CachePool::Part> parts;
    for (Stage& s : stages_) {
        CacheStorage storage;
        storage.shape = s.cache;
        parts.push_back({s.backend.get(), storage});
        states_.push_back(std::make_unique<StageState>(*s.backend));
        step_rows_ = step_rows_ ? std::min(step_rows_, s.backend->step_rows()) : s.backend->step_rows();
    }
    cache_ = std::make_unique<CachePool>(std::move(parts), max_cache_positions);
    chunk_ = std::make_unique<Chunk>();
}

Executor::~Executor() {
    for (Stage& s : stages_) try {
            s.backend->wait();
        } catch (...) {  // a failed device has nothing left in flight
        }
    cache_.reset();
    states_.clear();
}

Plan& Executor::plan(size_t stage, int rows, int outputs, int top) {
    StageState& state = *states_[stage];
    const Stage& s = stages_[stage];
    const PlanShape shape{bucket(rows), bucket(std::max(1, outputs)), top};
    const auto key = std::make_tuple(shape.max_rows, shape.max_outputs, shape.top);
    auto found = state.plans.find(key);
    if (found == state.plans.end()) {
        const MemoryPlan memory = plan_memory(s.graph, shape);
        if (!state.arena || state.arena->bytes < memory.bytes) {
            state.plans.clear();  // they hold the old arena's addresses
            if (state.arena) s.backend->release(state.arena);
            state.arena = nullptr;
            state.arena = s.backend->alloc(memory.bytes, Usage::activations);
        }
        StageState::Recorded recorded;
        recorded.plan = s.backend->record(bind(s.graph, memory, shape, *s.backend, state.arena), shape.max_rows);
        if (s.graph.input >= 0) recorded.input_at = memory.offsets[s.graph.input];
        recorded.output_at = memory.offsets[s.graph.output];
        if (s.graph.choice >= 0) recorded.choice_at = memory.offsets[s.graph.choice];
        found = state.plans.emplace(key, std::move(recorded)).first;
    }
    state.current = &found->second;
    return *found->second.plan;
}

// How many most likely tokens the last stage is to choose for these requests.
int Executor::choose(const std::vector<Request>& requests) const {
    const Graph& graph = stages_.back().graph;
    if (graph.choice < 0 || requests.size() != 1 || requests[0].all_logits) return 0;
    return requests[0].top <= graph.values[graph.choice].cols / 2 ? requests[0].top : 0;
}

// Takes the next rows of the unfinished requests; false when there are none left. Decoding sequences come first, so a
// long prompt does not hold them up.
bool Executor::fill(std::vector<Request>& requests, Chunk& chunk) {
    chunk.pieces.clear();
    Step& step = chunk.step;
    step.tokens.clear();
    step.positions.clear();
    step.output_rows.clear();
    step.sequences.clear();
    step.pages.clear();
    step.cancelled = nullptr;
    for (int pass = 0; pass < 2; ++pass) {
        for (size_t i = 0; i < requests.size(); ++i) {
            Request& r = requests[i];
            const size_t left = r.n - chunk.done[i];
            if (r.status != QUANT_OK || left == 0 || (left == 1) != (pass == 0)) continue;
            if (r.cancel && r.cancel->load(std::memory_order_relaxed)) {
                r.status = QUANT_CANCELLED;
                r.message = "cancelled";
                continue;
            }
            size_t take = std::min<size_t>(left, step_rows_ - step.tokens.size());
            const bool every = r.logits && r.all_logits;
            if (every) take = std::min<size_t>(take, max_step_outputs - step.output_rows.size());
            bool last = r.logits && !r.all_logits && take == left;
            if (last && step.output_rows.size() == max_step_outputs) {  // no room for its one output: leave a token
                if (--take == 0) continue;
                last = false;
            }
            if (take == 0) continue;

            const size_t position = r.sequence->length + chunk.done[i];
            StepSequence sequence;
            sequence.first_row = step.rows();
            sequence.rows = static_cast<int>(take);
            sequence.first_position = static_cast<int>(position);
            sequence.first_page = static_cast<int>(step.pages.size());
            step.sequences.push_back(sequence);
            step.pages.insert(step.pages.end(), r.sequence->pages.begin(), r.sequence->pages.end());
            Chunk::Piece piece{i, chunk.done[i], take, 0, every ? chunk.done[i] : 0};
            for (size_t t = 0; t < take; ++t) {
                if (every || (last && t + 1 == take)) {
                    step.output_rows.push_back(step.rows());
                    ++piece.outputs;
                }
                step.tokens.push_back(r.tokens[chunk.done[i] + t]);
                step.positions.push_back(static_cast<int32_t>(position + t));
            }
            chunk.pieces.push_back(piece);
        }
    }
    if (chunk.pieces.size() == 1) step.cancelled = requests[chunk.pieces[0].request].cancel;
    return !chunk.pieces.empty();
}

void Executor::execute(Chunk& chunk) {
    Step& step = chunk.step;
    const size_t last = stages_.size() - 1;
    for (size_t i = 0; i <= last; ++i) {
        Backend& backend = *stages_[i].backend;
        Plan& recorded = plan(i, step.rows(), step.outputs(), i == last && step.outputs() > 0 ? chunk.top : 0);
        StageState& state = *states_[i];
        const size_t hidden = static_cast<size_t>(step.rows()) * hidden_cols_;
        if (i > 0) backend.write(state.arena, state.current->input_at, hidden_.data(), hidden * sizeof(float));
        step.cache = &cache_->storage(i);
        backend.run(recorded, step);
        backend.wait();
        if (i < last) {
            hidden_.resize(hidden);
            backend.read(state.arena, state.current->output_at, hidden_.data(), hidden * sizeof(float));
        } else if (step.outputs() > 0) {
            chunk.logits.resize(step.outputs() * chunk.width(vocabulary_));
            backend.read(state.arena, chunk.top ? state.current->choice_at : state.current->output_at,
                         chunk.logits.data(), chunk.logits.size() * sizeof(float));
        }
    }
}

void Executor::deliver(std::vector<Request>& requests, const Chunk& chunk) {
    const float* from = chunk.logits.data();
    for (const Chunk::Piece& piece : chunk.pieces) {
        Request& r = requests[piece.request];
        const size_t width = chunk.width(vocabulary_), count = piece.outputs * width;
        if (r.status == QUANT_OK && count > 0)
            std::copy(from, from + count, r.logits->begin() + piece.first_output * width);
        from += count;
    }
}

void Executor::run(std::vector<Request>& requests) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto record_failure = [](Request& r, quant_status status, const char* message) {
        r.status = status;
        try {
            r.message = message;
        } catch (const std::bad_alloc&) {
            r.message.clear();
        }
    };
    // Runs f for one request; a failure is that request's alone.
    auto guarded = [&](Request& r, auto&& f) {
        try {
            f();
        } catch (const Error& e) {
            record_failure(r, e.status(), e.what());
        } catch (const std::bad_alloc&) {
            record_failure(r, QUANT_ERR_MEMORY, "not enough memory for this step");
        }
    };
    chunk_->top = choose(requests);
    for (Request& r : requests) {
        r.top = chunk_->top;
        if (r.status != QUANT_OK) continue;
        guarded(r, [&] {
            if (r.logits) r.logits->resize((r.all_logits ? r.n : 1) * chunk_->width(vocabulary_));
            cache_->reserve(*r.sequence, r.sequence->length + r.n);
        });
    }
    Request step_failure;
    guarded(step_failure, [&] {
        Chunk& chunk = *chunk_;
        chunk.done.assign(requests.size(), 0);
        while (fill(requests, chunk)) {
            execute(chunk);
            if (chunk.step.cancelled && chunk.step.cancelled->load(std::memory_order_relaxed))
                record_failure(requests[chunk.pieces[0].request], QUANT_CANCELLED, "cancelled");
            deliver(requests, chunk);
            for (const Chunk::Piece& piece : chunk.pieces) chunk.done[piece.request] += piece.count;
        }
    });
    for (Request& r : requests) {
        if (r.status == QUANT_OK && step_failure.status != QUANT_OK)
            record_failure(r, step_failure.status, step_failure.message.c_str());
        if (r.status == QUANT_OK) r.sequence->length += r.n;
        cache_->truncate(*r.sequence, r.sequence->length);
        if (r.cancel && r.status == QUANT_CANCELLED) r.cancel->store(false, std::memory_order_relaxed);
    }
}

void Executor::rewind(Sequence& s, size_t length) {
    std::lock_guard<std::mutex> lock(mutex_);
    cache_->truncate(s, length);
}

void Executor::fork(const Sequence& from, size_t length, Sequence& to) {
    std::lock_guard<std::mutex> lock(mutex_);
    cache_->share(from, length, to);
}

}  // namespace quant
