// Hopper's asynchronous products of a warpgroup, with the first operand in registers or in shared memory, and the
// second in shared memory.
#pragma once
#include <cuda.h>

#include <cstdint>

namespace quant {
namespace cuda {
namespace wgmma {

// The second operand: rows (columns of the result) of 128 bytes, 8 rows after each other 1024 bytes apart, 16-byte
// chunks swizzled: chunk c of row r lies at c ^ (r % 8).
__device__ inline uint64_t descriptor(uint32_t shared_address) {
    return static_cast<uint64_t>((shared_address & 0x3ffff) >> 4) | uint64_t{1} << 16 | uint64_t{64} << 32 |
           uint64_t{1} << 62;
}
// The first operand: 8 bit codes of four weight tiles in layout "fragments", a stage of each after the other. Matrices
// of 8 rows by 16 bytes lie 128 bytes apart by column, 512 bytes by rows.
__device__ inline uint64_t code_descriptor(uint32_t shared_address) {
    return static_cast<uint64_t>((shared_address & 0x3ffff) >> 4) | uint64_t{128 >> 4} << 16 | uint64_t{512 >> 4} << 32;
}
// Bytes after a descriptor's, within its slot of memory.
__device__ constexpr uint64_t descriptor_offset(int bytes) {
    return static_cast<uint64_t>(bytes >> 4);
}
__device__ inline void fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until no more than `most` of the groups are under way.
template <int most>
__device__ inline void wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(most) : "memory");
}
// The compiler does not know that products still read their operands after they were issued: this is a use of them.
__device__ inline void keep(const uint32_t (&operand)[4][4]) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
        asm volatile("" ::"r"(operand[k][0]), "r"(operand[k][1]), "r"(operand[k][2]), "r"(operand[k][3]) : "memory");
}

#define QUANT_WGMMA_VALUES_0_31                \
    "%0, %1, %2, %3, %4, %5, %6, %7, "         \
    "%8, %9, %10, %11, %12, %13, %14, %15, "   \
    "%16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31"
#define QUANT_WGMMA_VALUES_32_63               \
    "%32, %33, %34, %35, %36, %37, %38, %39, " \
    "%40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, " \
    "%56, %57, %58, %59, %60, %61, %62, %63"
#define QUANT_WGMMA_VALUES_64_95               \
    "%64, %65, %66, %67, %68, %69, %70, %71, " \
    "%72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, " \
    "%88, %89, %90, %91, %92, %93, %94, %95"
#define QUANT_WGMMA_VALUES_96_127                      \
    "%96, %97, %98, %99, %100, %101, %102, %103, "     \
    "%104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, " \
    "%120, %121, %122, %123, %124, %125, %126, %127"
#define QUANT_WGMMA_8(constraint, i)                                                                          \
    constraint(d[i]), constraint(d[i + 1]), constraint(d[i + 2]), constraint(d[i + 3]), constraint(d[i + 4]), \
        constraint(d[i + 5]), constraint(d[i + 6]), constraint(d[i + 7])
#define QUANT_WGMMA_32(constraint, i)                                                                  \
    QUANT_WGMMA_8(constraint, i), QUANT_WGMMA_8(constraint, i + 8), QUANT_WGMMA_8(constraint, i + 16), \
        QUANT_WGMMA_8(constraint, i + 24)
#define QUANT_WGMMA_FLOAT(x) "+f"(x)
#define QUANT_WGMMA_INT(x) "+r"(x)

// 64 x 8, 16, 32, 128, 192 or 256 results: half as many a thread, of each 8 columns as mma.sync has them. add = 0: d is
// not read.
#define QUANT_WGMMA_VALUES_4 "%0, %1, %2, %3"
#define QUANT_WGMMA_VALUES_8 QUANT_WGMMA_VALUES_4 ", %4, %5, %6, %7"
#define QUANT_WGMMA_VALUES_16 QUANT_WGMMA_VALUES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define QUANT_WGMMA_VALUES_64 QUANT_WGMMA_VALUES_0_31 ", " QUANT_WGMMA_VALUES_32_63
#define QUANT_WGMMA_VALUES_96 QUANT_WGMMA_VALUES_64 ", " QUANT_WGMMA_VALUES_64_95
#define QUANT_WGMMA_VALUES_128 QUANT_WGMMA_VALUES_96 ", " QUANT_WGMMA_VALUES_96_127
#define QUANT_WGMMA_OPERANDS_4(constraint) constraint(d[0]), constraint(d[1]), constraint(d[2]), constraint(d[3])
#define QUANT_WGMMA_OPERANDS_8(constraint) QUANT_WGMMA_8(constraint, 0)
#define QUANT_WGMMA_OPERANDS_16(constraint) QUANT_WGMMA_8(constraint, 0), QUANT_WGMMA_8(constraint, 8)
#define QUANT_WGMMA_OPERANDS_64(constraint) QUANT_WGMMA_32(constraint, 0), QUANT_WGMMA_32(constraint, 32)
#define QUANT_WGMMA_OPERANDS_96(constraint) QUANT_WGMMA_OPERANDS_64(constraint), QUANT_WGMMA_32(constraint, 64)
#define QUANT_WGMMA_OPERANDS_128(constraint) QUANT_WGMMA_OPERANDS_96(constraint), QUANT_WGMMA_32(constraint, 96)

// The first operand in registers.
#define QUANT_WGMMA_PRODUCT(instruction, ending, operands)                                          \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0; wgmma.mma_async.sync.aligned." instruction \
                 " {" QUANT_WGMMA_VALUES_64 "}, {%64, %65, %66, %67}, %68, p" ending "; }"          \
                 : operands                                                                         \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))

__device__ inline void product_f16(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
    QUANT_WGMMA_PRODUCT("m64n128k16.f32.f16.f16", ", 1, 1, 0", QUANT_WGMMA_OPERANDS_64(QUANT_WGMMA_FLOAT));
}
__device__ inline void product_bf16(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
    QUANT_WGMMA_PRODUCT("m64n128k16.f32.bf16.bf16", ", 1, 1, 0", QUANT_WGMMA_OPERANDS_64(QUANT_WGMMA_FLOAT));
}
// Of u4 codes.
__device__ inline void product_int8(int (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
    QUANT_WGMMA_PRODUCT("m64n128k32.s32.u8.s8", "", QUANT_WGMMA_OPERANDS_64(QUANT_WGMMA_INT));
}
__device__ inline void product_e4m3(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
    QUANT_WGMMA_PRODUCT("m64n128k32.f32.e4m3.e4m3", ", 1, 1", QUANT_WGMMA_OPERANDS_64(QUANT_WGMMA_FLOAT));
}

// Both in shared memory: a as code_descriptor, b as descriptor says.
#define QUANT_WGMMA_BOTH(instruction, ending, values, operands, at_a, at_b, at_add)                         \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %" at_add ", 0; wgmma.mma_async.sync.aligned." instruction \
                 " {" values "}, %" at_a ", %" at_b ", p" ending "; }"                                      \
                 : operands                                                                                 \
                 : "l"(a), "l"(b), "r"(add))
#define QUANT_WGMMA_DEFINE_BOTH(tokens, n, at_a, at_b, at_add)                                \
    __device__ inline void product_e4m3(float(&d)[n], uint64_t a, uint64_t b, int add) {      \
        QUANT_WGMMA_BOTH("m64n" tokens "k32.f32.e4m3.e4m3", ", 1, 1", QUANT_WGMMA_VALUES_##n, \
                         QUANT_WGMMA_OPERANDS_##n(QUANT_WGMMA_FLOAT), at_a, at_b, at_add);    \
    }                                                                                         \
    template <bool SignedA>                                                                   \
    __device__ inline void product_int8(int(&d)[n], uint64_t a, uint64_t b, int add) {        \
        if (SignedA)                                                                          \
            QUANT_WGMMA_BOTH("m64n" tokens "k32.s32.s8.s8", "", QUANT_WGMMA_VALUES_##n,       \
                             QUANT_WGMMA_OPERANDS_##n(QUANT_WGMMA_INT), at_a, at_b, at_add);  \
        else                                                                                  \
            QUANT_WGMMA_BOTH("m64n" tokens "k32.s32.u8.s8", "", QUANT_WGMMA_VALUES_##n,       \
                             QUANT_WGMMA_OPERANDS_##n(QUANT_WGMMA_INT), at_a, at_b, at_add);  \
    }
QUANT_WGMMA_DEFINE_BOTH("8", 4, "4", "5", "6")
QUANT_WGMMA_DEFINE_BOTH("16", 8, "8", "9", "10")
QUANT_WGMMA_DEFINE_BOTH("32", 16, "16", "17", "18")
QUANT_WGMMA_DEFINE_BOTH("128", 64, "64", "65", "66")
QUANT_WGMMA_DEFINE_BOTH("192", 96, "96", "97", "98")
QUANT_WGMMA_DEFINE_BOTH("256", 128, "128", "129", "130")

// ---- Barriers and bulk copies --------------------------------------------------------------------------------------

__device__ inline void barrier_init(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// At the barrier that lies there in block `rank` of the cluster.
__device__ inline void barrier_arrive(uint32_t barrier, int rank) {
    asm volatile(
        "{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [there]; "
        "}" ::"r"(barrier),
        "r"(rank)
        : "memory");
}
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile(
        "{ .reg .pred done; again_%=: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra again_%=; "
        "}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}
// Where producer or consumers are in a ring of slots of shared memory, each of which has two barriers.
template <int slot_bytes, int depth>
struct Ring {
    uint32_t slots, full, empty;
    int slot = 0;
    uint32_t parity = 0;  // of the turn
    __device__ uint32_t memory() const { return slots + slot * slot_bytes; }
    __device__ uint32_t full_barrier() const { return full + slot * 8; }
    __device__ uint32_t empty_barrier() const { return empty + slot * 8; }
    __device__ void advance() {
        if (++slot == depth) slot = 0, parity ^= 1;
    }
};

// The box of `map` from (byte, row, tile) on, whose bytes the barrier counts.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, int byte, int row, int tile, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
        "[%5];" ::"r"(to),
        "l"(&map), "r"(byte), "r"(row), "r"(tile), "r"(barrier)
        : "memory");
}
// To the same place in each block of the cluster whose bit is set in `blocks`, and to its barrier.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, int byte, int row, int tile, uint32_t barrier,
                                uint16_t blocks) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
        "[%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
        "l"(&map), "r"(byte), "r"(row), "r"(tile), "r"(barrier), "h"(blocks)
        : "memory");
}
// All threads of all blocks of the cluster have come here.
__device__ inline void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ inline void store_shared(uint32_t at, float v) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(v) : "memory");
}
__device__ inline void store_shared(uint32_t at, int v) {
    asm volatile("st.shared.s32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}
// From the same place in block `rank` of the cluster.
__device__ inline uint32_t load_shared_of(int rank, uint32_t at) {
    uint32_t v;
    asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %1, %2; ld.shared::cluster.u32 %0, [there]; }"
                 : "=r"(v)
                 : "r"(at), "r"(rank)
                 : "memory");
    return v;
}
// Two warpgroups take turns: each waits for its own until the other gives it.
__device__ inline void turn_wait(int warpgroup) {
    asm volatile("bar.sync %0, 256;" ::"r"(1 + warpgroup) : "memory");
}
__device__ inline void turn_give(int warpgroup) {
    asm volatile("bar.arrive %0, 256;" ::"r"(1 + warpgroup) : "memory");
}

}  // namespace wgmma
}  // namespace cuda
}  // namespace quant
