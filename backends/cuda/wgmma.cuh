// Hopper's asynchronous products of a warpgroup, with the first operand in registers and the second in shared memory.
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

#define QUANT_WGMMA_RESULT                     \
    "{%0, %1, %2, %3, %4, %5, %6, %7, "        \
    "%8, %9, %10, %11, %12, %13, %14, %15, "   \
    "%16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, " \
    "%40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, " \
    "%56, %57, %58, %59, %60, %61, %62, %63}, "
#define QUANT_WGMMA_OPERANDS(constraint)                                                                              \
    constraint(d[0]), constraint(d[1]), constraint(d[2]), constraint(d[3]), constraint(d[4]), constraint(d[5]),       \
        constraint(d[6]), constraint(d[7]), constraint(d[8]), constraint(d[9]), constraint(d[10]), constraint(d[11]), \
        constraint(d[12]), constraint(d[13]), constraint(d[14]), constraint(d[15]), constraint(d[16]),                \
        constraint(d[17]), constraint(d[18]), constraint(d[19]), constraint(d[20]), constraint(d[21]),                \
        constraint(d[22]), constraint(d[23]), constraint(d[24]), constraint(d[25]), constraint(d[26]),                \
        constraint(d[27]), constraint(d[28]), constraint(d[29]), constraint(d[30]), constraint(d[31]),                \
        constraint(d[32]), constraint(d[33]), constraint(d[34]), constraint(d[35]), constraint(d[36]),                \
        constraint(d[37]), constraint(d[38]), constraint(d[39]), constraint(d[40]), constraint(d[41]),                \
        constraint(d[42]), constraint(d[43]), constraint(d[44]), constraint(d[45]), constraint(d[46]),                \
        constraint(d[47]), constraint(d[48]), constraint(d[49]), constraint(d[50]), constraint(d[51]),                \
        constraint(d[52]), constraint(d[53]), constraint(d[54]), constraint(d[55]), constraint(d[56]),                \
        constraint(d[57]), constraint(d[58]), constraint(d[59]), constraint(d[60]), constraint(d[61]),                \
        constraint(d[62]), constraint(d[63])
#define QUANT_WGMMA_FLOAT(x) "+f"(x)
#define QUANT_WGMMA_INT(x) "+r"(x)
// 64 x 128 results: 64 a thread, of each 8 columns as mma.sync has them. add = 0: d is not read.
#define QUANT_WGMMA_PRODUCT(instruction, ending, operands)                                          \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0; wgmma.mma_async.sync.aligned." instruction \
                 " " QUANT_WGMMA_RESULT "{%64, %65, %66, %67}, %68, p" ending "; }"                 \
                 : operands                                                                         \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))

__device__ inline void product_f16(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
    QUANT_WGMMA_PRODUCT("m64n128k16.f32.f16.f16", ", 1, 1, 0", QUANT_WGMMA_OPERANDS(QUANT_WGMMA_FLOAT));
}
__device__ inline void product_bf16(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
    QUANT_WGMMA_PRODUCT("m64n128k16.f32.bf16.bf16", ", 1, 1, 0", QUANT_WGMMA_OPERANDS(QUANT_WGMMA_FLOAT));
}
template <bool SignedA>
__device__ inline void product_int8(int (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
    if (SignedA)
        QUANT_WGMMA_PRODUCT("m64n128k32.s32.s8.s8", "", QUANT_WGMMA_OPERANDS(QUANT_WGMMA_INT));
    else
        QUANT_WGMMA_PRODUCT("m64n128k32.s32.u8.s8", "", QUANT_WGMMA_OPERANDS(QUANT_WGMMA_INT));
}

__device__ inline void product_e4m3(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
    QUANT_WGMMA_PRODUCT("m64n128k32.f32.e4m3.e4m3", ", 1, 1", QUANT_WGMMA_OPERANDS(QUANT_WGMMA_FLOAT));
}

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
__device__ inline uint4 load_shared(uint32_t at) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
}
__device__ inline void store_shared(uint32_t at, float v) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(v) : "memory");
}
__device__ inline void store_shared(uint32_t at, int v) {
    asm volatile("st.shared.s32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}
// Of two warpgroups, one waits until the other has issued its products.
__device__ inline void turn_wait() {
    asm volatile("bar.sync 1, 256;" ::: "memory");
}
__device__ inline void turn_give() {
    asm volatile("bar.arrive 1, 256;" ::: "memory");
}

}  // namespace wgmma
}  // namespace cuda
}  // namespace quant
