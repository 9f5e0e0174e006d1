/* An allocator for NumPy and Numba that puts each array into a mapping of its own, between two pages that nobody may touch.

   info (read-only) | guard | data ... | guard

   A block ends at the second guard page (`at_end`) or begins at the first. The rest of its pages is filled with SLACK, which
   must still be there when the block is freed. New memory is all ones, which is NaN in every float type. A freed block is
   unmapped, so that a later access is caught as well. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#define SLACK 0xA5

typedef struct {
    size_t mapped, size;     /* bytes of the mapping, and of the block */
    unsigned char *first;    /* data page */
    unsigned char *end;      /* of the data pages */
} Info;

static size_t page;
static int at_end = 1;
static long blocks = 0;

/* Both kinds of block begin in their first data page, two pages behind the mapping's start. */
static Info *info_of(void *block) {
    return (Info *)(((uintptr_t)block & ~(uintptr_t)(page - 1)) - 2 * page);
}

static void *new_block(size_t size, int byte) {
    if (size == 0) size = 1;
    size_t data = (size + page - 1) / page * page;
    unsigned char *map = mmap(NULL, data + 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return NULL;
    Info info = {data + 3 * page, size, map + 2 * page, map + 2 * page + data};
    unsigned char *block = at_end ? info.end - size : info.first;
    *(Info *)map = info;
    memset(info.first, SLACK, data);
    memset(block, byte, size);
    mprotect(map, page, PROT_READ);
    mprotect(map + page, page, PROT_NONE);
    mprotect(info.end, page, PROT_NONE);
    __atomic_add_fetch(&blocks, 1, __ATOMIC_RELAXED);
    return block;
}

static void *guarded_malloc(void *context, size_t size) { return new_block(size, 0xFF); }

static void *guarded_calloc(void *context, size_t count, size_t size) {
    if (size && count > SIZE_MAX / size) return NULL;
    return new_block(count * size, 0);
}

static void guarded_free(void *context, void *block, size_t size) {
    if (block == NULL) return;
    Info info = *info_of(block);
    for (unsigned char *at = info.first; at < info.end; at++) {
        int inside = at >= (unsigned char *)block && at < (unsigned char *)block + info.size;
        if (!inside && *at != SLACK) {
            fprintf(stderr, "canary: byte %+ld of a block of %zu bytes was written to\n",
                    (long)(at - (unsigned char *)block), info.size);
            abort();
        }
    }
    munmap(info.first - 2 * page, info.mapped);
}

static void *guarded_realloc(void *context, void *block, size_t size) {
    void *larger = new_block(size, 0xFF);
    if (larger == NULL || block == NULL) return larger;
    size_t before = info_of(block)->size;
    memcpy(larger, block, before < size ? before : size);
    guarded_free(context, block, before);
    return larger;
}

static PyDataMem_Handler handler = {
    "fastnet_guard", 1, {NULL, guarded_malloc, guarded_calloc, guarded_realloc, guarded_free}};

static PyObject *set(PyObject *capsule) {
    PyObject *before = PyDataMem_SetHandler(capsule);
    if (before == NULL) return NULL;
    Py_DECREF(before);
    Py_RETURN_NONE;
}

static PyObject *on(PyObject *self, PyObject *where) {
    int end = PyObject_IsTrue(where);
    if (end < 0) return NULL;
    PyObject *capsule = PyCapsule_New(&handler, "mem_handler", NULL);
    if (capsule == NULL) return NULL;
    at_end = end;
    PyObject *result = set(capsule);
    Py_DECREF(capsule);
    return result;
}

static PyObject *off(PyObject *self, PyObject *none) { return set(NULL); }

/* Numba's compiled code calls `numba_alloc` in the place of NRT_MemInfo_alloc_aligned; the start of NRT_api_functions in
   Numba's nrt_external.h says how memory becomes a block of Numba's. */
typedef struct {
    void *allocate, *allocate_external;
    void *(*manage_memory)(void *data, void (*release)(void *data));
} Numba;

static Numba *numba;
static long of_numba = 0;

static void release(void *block) { guarded_free(NULL, block, 0); }

static void *numba_alloc(size_t size, uint32_t align) {
    void *block = new_block(size, 0xFF);
    if (block == NULL) return NULL;
    __atomic_add_fetch(&of_numba, 1, __ATOMIC_RELAXED);
    return numba->manage_memory(block, release);
}

static PyObject *guard_numba(PyObject *self, PyObject *get_api) {
    void *address = PyLong_AsVoidPtr(get_api);
    if (address == NULL) return NULL;
    numba = ((Numba *(*)(void))address)();
    return PyLong_FromVoidPtr((void *)numba_alloc);
}

static PyObject *count_of_numba(PyObject *self, PyObject *none) { return PyLong_FromLong(of_numba); }

static PyObject *count(PyObject *self, PyObject *none) { return PyLong_FromLong(blocks); }

static PyMethodDef methods[] = {
    {"on", on, METH_O, "Guard arrays made from now on: at their end if the argument is true, otherwise at their beginning."},
    {"off", off, METH_NOARGS, "NumPy's own allocator again."},
    {"numba", guard_numba, METH_O, "The address of an allocator for compiled code, from that of NRT_get_api."},
    {"count_of_numba", count_of_numba, METH_NOARGS, "How many blocks it made."},
    {"count", count, METH_NOARGS, "How many blocks were made."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "guard_pages_c", NULL, -1, methods};

PyMODINIT_FUNC PyInit_guard_pages_c(void) {
    import_array();
    page = (size_t)sysconf(_SC_PAGESIZE);
    return PyModule_Create(&definition);
}
