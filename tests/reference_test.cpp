// The reference kernels against values worked out by hand, and the loopback device against the CPU.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <string>

#include "core/scheme.h"
#include "formats/error.h"
#include "formats/float_types.h"
#include "tests/kernel_rig.h"
#include "tests/loopback.h"

using namespace quant;

namespace {

Matrix matrix(int rows, int64_t cols, const std::vector<float>& values) {
    Matrix m(rows, cols);
    m.values = values;
    return m;
}

Format format(const char* name) {
    Format f;
    REQUIRE(format_parse(name, &f));
    return f;
}

// One weight row of u8 or s8 codes with an f32 scale (and minimum).
HostWeight weight_row(const char* name, const std::vector<int>& codes, float scale, float minimum, float bias) {
    HostWeight w;
    w.format = format(name);
    w.rows = 1;
    w.cols = static_cast<int64_t>(codes.size());
    for (int c : codes) w.codes.push_back(static_cast<uint8_t>(c));
    auto put = [](float x, std::vector<uint8_t>& to) {
        to.resize(4);
        const uint32_t bits = float_bits(x);
        for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(bits >> (8 * i));
    };
    put(scale, w.scales);
    if (w.format.zero == Zero::minimum) put(minimum, w.zeros);
    if (bias != 0) w.bias = {bias};
    return w;
}

Codes code_row(const std::vector<int>& values, float scale) {
    Codes x(ValueType::s8, 1, static_cast<int64_t>(values.size()));
    x.scales[0].scale = scale;
    for (size_t i = 0; i < values.size(); ++i) {
        x.codes[i] = static_cast<uint8_t>(values[i]);
        x.scales[0].sum += values[i];
    }
    return x;
}

float linear(Device& device, const HostWeight& w, const Codes& x) {
    Run run(device);
    const Weight weight = run.weight(w, &layout_stored, Activation::s8);
    const Operand out = run.put(Matrix(1, 1));
    run.node(device.reference(Op::linear), {}, &weight, {run.put(x)}, out, plain_step(1), 1);
    return run.get_matrix(out, 1).row(0)[0];
}

Codes quantize(Device& device, ValueType type, const Matrix& x) {
    Run run(device);
    const Operand out = run.put(Codes(type, x.rows, x.cols));
    run.node(device.reference(Op::quantize), {}, nullptr, {run.put(x)}, out, plain_step(x.rows), x.rows);
    return run.get_codes(out, x.rows);
}

}  // namespace

TEST_CASE("an a8w8 linear's epilogue is this one", "[reference]") {
    Device device("cpu:reference", 1);
    const float a = 0.013f, s = 0.0071f, m = -0.77f, bias = 0.3f;
    // 3*100 - 7*127 + 2*(-128) = -847; the sum of the codes is 98.
    const Codes x = code_row({3, -7, 102}, a);
    const float y = (static_cast<float>(3 * 100 - 7 * 127 - 102 * 128) * a) * s;
    CHECK(linear(device, weight_row("s8:channel:f32", {100, 127, -128}, s, 0, 0), x) == y);
    CHECK(linear(device, weight_row("s8:channel:f32", {100, 127, -128}, s, 0, bias), x) == y + bias);
    const float product = (static_cast<float>(3 * 100 - 7 * 255 + 102 * 128) * a) * s;
    CHECK(linear(device, weight_row("u8:channel:f32:min", {100, 255, 128}, s, m, 0), x) ==
          product + (static_cast<float>(98) * a) * m);
    CHECK(linear(device, weight_row("u8:channel:f32:z128", {100, 255, 128}, s, 0, 0), x) ==
          (static_cast<float>(3 * -28 - 7 * 127) * a) * s);
}

TEST_CASE("quantize to int8 rounds half to even and survives anything", "[reference]") {
    Device device("cpu:reference", 1);
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const Codes c = quantize(device, ValueType::s8, matrix(5, 5, {127,      0.5f, 1.5f, -2.5f, -127,  //
                                                                  0,        0,    -0.f, 0,     0,     //
                                                                  1,        nan,  -1,   0.25f, 0,     //
                                                                  infinity, 1,    -1,   0,     nan,   //
                                                                  nan,      nan,  nan,  nan,   nan}));
    auto codes = [&](int r) {
        std::vector<int> v;
        for (int i = 0; i < 5; ++i) v.push_back(static_cast<int8_t>(c.row(r)[i]));
        return v;
    };
    CHECK(codes(0) == std::vector<int>{127, 0, 2, -2, -127});
    CHECK(c.scales[0].scale == 1);
    CHECK(c.scales[0].sum == 0);
    CHECK(codes(1) == std::vector<int>{0, 0, 0, 0, 0});
    CHECK(c.scales[1].scale == 0);
    CHECK(codes(2) == std::vector<int>{127, 0, -127, 32, 0});
    CHECK(c.scales[2].sum == 32);
    CHECK(codes(3) == std::vector<int>{0, 0, 0, 0, 0});
    CHECK(c.scales[3].scale == infinity);
    CHECK(codes(4) == std::vector<int>{0, 0, 0, 0, 0});
    CHECK(c.scales[4].scale == 0);
}

TEST_CASE("quantize to e4m3 divides by a scale with a floor", "[reference]") {
    Device device("cpu:reference", 1);
    const Codes c = quantize(device, ValueType::e4m3, matrix(3, 3, {448, -224, 1, 0, 0, 0, 1e-9f, 0, 0}));
    CHECK(c.scales[0].scale == 1);
    CHECK(c.row(0)[0] == 0x7e);
    CHECK(c.row(0)[1] == f32_to_e4m3(-224));
    CHECK(c.row(0)[2] == f32_to_e4m3(1));
    for (int r : {1, 2}) CHECK(c.scales[r].scale == 1.0f / (448.0f * 512.0f));
    CHECK(c.scales[0].sum == 0);
}

TEST_CASE("small ops by hand", "[reference]") {
    Device device("cpu:reference", 1);
    auto compute = [&](Op op, Node node, const HostWeight* weight, const std::vector<Matrix>& in, int64_t cols) {
        Run run(device);
        Weight w;
        if (weight) w = run.weight(*weight, &layout_stored);
        std::vector<Operand> operands;
        for (const Matrix& m : in) operands.push_back(run.put(m));
        const Operand out = run.put(Matrix(1, cols));
        run.node(device.reference(op), node, weight ? &w : nullptr, operands, out, plain_step(1), 1);
        return run.get_matrix(out, 1).values;
    };
    Node norm;
    norm.eps = 0;
    const HostWeight gain = vector_weight({1, 2});
    const std::vector<float> normed = compute(Op::rmsnorm, norm, &gain, {matrix(1, 2, {3, 4})}, 2);
    CHECK(normed[0] == Approx(3 / std::sqrt(12.5)));
    CHECK(normed[1] == Approx(8 / std::sqrt(12.5)));

    Node rope;
    rope.heads = 1;
    rope.head_dim = 4;
    const Matrix x = matrix(1, 4, {1, 2, 3, 4}), angles = matrix(1, 4, {0, 1, 1, 0});  // 90 degrees, 0 degrees
    CHECK(compute(Op::rope, rope, nullptr, {x, angles}, 4) == std::vector<float>{-3, 2, 1, 4});
    rope.adjacent_pairs = true;
    CHECK(compute(Op::rope, rope, nullptr, {x, angles}, 4) == std::vector<float>{-2, 1, 3, 4});

    CHECK(compute(Op::silu_mul, {}, nullptr, {matrix(1, 3, {0, 1000, -1000}), matrix(1, 3, {5, 2, 2})}, 3) ==
          std::vector<float>{0, 2000, -0.f});
    CHECK(compute(Op::add, {}, nullptr, {matrix(1, 2, {1, 2}), matrix(1, 2, {3, -2})}, 2) == std::vector<float>{4, 0});
}

TEST_CASE("embed reads only its table", "[reference]") {
    Device device("cpu:reference", 1);
    Run run(device);
    Random random(1);
    const HostWeight table = random_weight(format("s8:channel:f16"), 3, 8, false, random);
    const Weight weight = run.weight(table, &layout_stored);
    const Operand out = run.put(Matrix(3, 8));
    Step step = plain_step(3);
    step.tokens = {-5, 1, 1 << 30};
    run.node(device.reference(Op::embed), {}, &weight, {}, out, step, 3);
    const Matrix y = run.get_matrix(out, 3);
    for (int r = 0; r < 3; ++r) {
        std::vector<float> expected(8);
        decode_row(table.view(), r, expected.data());
        CHECK(same_bits(y.row(r), expected.data(), 8));
    }
}

// ---- Devices ----------------------------------------------------------------------------------------------------

TEST_CASE("devices are listed best first, and unknown ones are refused by name", "[devices]") {
    const std::vector<DeviceInfo> devices = list_devices();
    size_t cpus = 0;  // the processor's come first
    while (cpus < devices.size() && devices[cpus].name.rfind("cpu:", 0) == 0) ++cpus;
    REQUIRE(cpus >= 2);
    CHECK(devices[cpus - 1].name == "cpu:reference");
    CHECK(devices[cpus - 1].reason.empty());
    CHECK(devices[cpus - 2].name == "cpu:baseline");
    quant_host host{};
    ThreadPool threads(host);
    HostMemory memory(host);
    const DeviceServices services{&threads, &memory, false};
    std::string best;
    for (const DeviceInfo& device : devices) {
        CHECK_FALSE(device.description.empty());
        if (device.reason.empty()) {
            CHECK(device.memory_total > 0);
            if (best.empty()) best = device.name;
            CHECK(create_backend(device.name.c_str(), services)->name() == device.name);
        } else {
            try {
                create_backend(device.name.c_str(), services);
                FAIL("created " << device.name);
            } catch (const Error& e) {
                CHECK(e.status() == QUANT_ERR_UNSUPPORTED);
                CHECK(std::string(e.what()).find(device.reason) != std::string::npos);
            }
        }
    }
    CHECK(create_backend(nullptr, services)->name() == best);
    CHECK(create_backend("cpu", services)->name() == best);
    for (const char* name : {"", "gpu", "cpu:", "CPU", "cpu:avx1024"}) {
        try {
            create_backend(name, services);
            FAIL("created " << name);
        } catch (const Error& e) {
            CHECK(e.status() == QUANT_ERR_ARGUMENT);
            CHECK(std::string(e.what()).find("cpu:reference") != std::string::npos);
        }
    }
}

TEST_CASE("a cancelled plan ends early", "[devices]") {
    Device device("cpu:reference", 1);
    Run run(device);
    const Operand in = run.put(matrix(1, 2, {1, 2})), out = run.put(Matrix(1, 2));
    const std::atomic<bool> cancelled{true};
    Step step = plain_step(1);
    step.cancelled = &cancelled;
    run.node(device.reference(Op::add), {}, nullptr, {in, in}, out, step, 1);
    CHECK(std::isnan(run.get_matrix(out, 1).row(0)[0]));
}

TEST_CASE("the loopback device replays what was recorded, in order, and reports failures in wait", "[devices]") {
    quant_host host{};
    host.threads = 2;
    ThreadPool threads(host);
    HostMemory memory(host);
    auto loopback = create_loopback("loopback:0", {&threads, &memory, false});
    auto second = create_loopback("loopback:1", {&threads, &memory, false});
    CHECK(loopback->name() == "loopback:0");
    CHECK(second->name() == "loopback:1");
    CHECK(loopback->adopt("x", 1) == nullptr);

    Buffer* buffer = loopback->alloc(3 * 4, Usage::activations);
    float values[3];
    loopback->read(buffer, 0, values, 12);
    for (float v : values) CHECK(std::isnan(v));  // poisoned
    const float one = 1, two = 2;
    loopback->write(buffer, 0, &one, 4);
    loopback->write(buffer, 4, &two, 4);

    Bound add;
    add.node.op = Op::add;
    for (Operand* o : {&add.in[0], &add.in[1], &add.out}) {
        o->cols = o->stride = 1;
        o->data = {buffer, 0, 4};
    }
    add.in[1].data.offset = 4;
    add.out.data.offset = 4;
    for (const Kernel& k : loopback->kernels())
        if (k.op == Op::add) add.kernel = &k;
    auto plan = loopback->record({add}, 1);  // buffer[1] += buffer[0]
    {
        Step step = plain_step(1);
        for (int i = 0; i < 100; ++i) loopback->run(*plan, step);
        step = {};  // its contents were kept
    }
    loopback->copy(buffer, 8, buffer, 4, 4);
    loopback->run(*plan, plain_step(1));
    loopback->wait();
    loopback->read(buffer, 0, values, 12);
    CHECK(values[0] == 1);
    CHECK(values[1] == 103);
    CHECK(values[2] == 102);

    loopback_fail_next(*loopback, "lost");
    loopback->run(*plan, plain_step(1));
    loopback->run(*plan, plain_step(1));
    try {
        loopback->wait();
        FAIL("no failure");
    } catch (const Error& e) {
        CHECK(e.status() == QUANT_ERR_DEVICE);
        CHECK(std::string(e.what()) == "loopback:0: lost");
    }
    loopback->run(*plan, plain_step(1));
    loopback->wait();
    loopback->read(buffer, 4, values, 4);
    CHECK(values[0] == 104);
    CHECK_THROWS_AS(loopback->write(buffer, 9, &one, 4), Error);
    plan.reset();
    loopback->release(buffer);
}
