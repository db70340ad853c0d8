// What the processor's matrices of bytes (AMX) need before they can be used. Without them `has_amx` is false.
#pragma once
#include <cstdint>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 11)
#define MEMRELAY_AMX 1

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AVX512 "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma"
#define AMX AVX512 ",amx-tile,amx-int8"
#define IN_MEMORY __asm__ volatile("" ::: "memory")  // the compiler does not know what is read into tiles

inline bool has_avx512()
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}

// Asks the kernel, once: a process has to.
inline bool has_amx()
{
    static const bool found = [] {
        unsigned a, b, c, d;
        if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & (1u << 24)) || !(d & (1u << 25))) return false;
        return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) == 0;
    }();
    return found;
}

struct TileShapes {  // of up to eight tiles
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};

    void set(int tile, int rows_of_it, int bytes_of_a_row) { rows[tile] = uint8_t(rows_of_it), bytes[tile] = uint16_t(bytes_of_a_row); }
};

#endif
