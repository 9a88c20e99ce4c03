"use strict";
// Bodies that turn. Coordinates are the camera's: x right, y down, z away, about the pelvis; 1 is the farthest point.

const VERTEX_SHADER = `#version 300 es
in vec3 position;
in vec3 normal;
uniform mat3 turn;
uniform float zoom;
out vec3 towards;
void main() {
  vec3 place = turn * position;
  towards = turn * normal;
  gl_Position = vec4(zoom * place.x, -zoom * place.y, 0.5 * place.z, 1.0);
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
in vec3 towards;
uniform vec3 ink;
out vec4 color;
void main() {
  vec3 n = normalize(towards);
  if (n.z > 0.0) n = -n;
  float lit = max(dot(n, vec3(-0.36, -0.62, -0.70)), 0.0);
  float sky = 0.5 - 0.5 * n.y;
  color = vec4(ink * (0.34 + 0.16 * sky + 0.56 * lit) + 0.05 * pow(lit, 12.0), 1.0);
}`;

const FITTING = 0.92;
const MOST_ZOOM = 6;
const SIDE_INK = { left: "#e26a20", right: "#2268be", middle: "#59606c" };

function bytesOf(base64) {
  const written = atob(base64);
  const bytes = new Uint8Array(written.length);
  for (let i = 0; i < written.length; i++) bytes[i] = written.charCodeAt(i);
  return bytes.buffer;
}

/** Turn about the vertical, then tilt towards the reader, in degrees; rows of a matrix. */
function rotation(turn, tilt) {
  const [a, b] = [(turn * Math.PI) / 180, (tilt * Math.PI) / 180];
  const [ca, sa, cb, sb] = [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b)];
  return [
    [ca, 0, sa],
    [sa * sb, cb, -ca * sb],
    [-sa * cb, sb, ca * cb],
  ];
}

function rotated(points, rows) {
  const turned = new Float32Array(points.length);
  for (let i = 0; i < points.length; i += 3)
    for (let row = 0; row < 3; row++)
      turned[i + row] = rows[row][0] * points[i] + rows[row][1] * points[i + 1] + rows[row][2] * points[i + 2];
  return turned;
}

/** The cross product of two edges of each triangle, one after the other. */
function faceNormals(points, faces) {
  const normals = new Float32Array(faces.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [i, j, k] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
    const [ux, uy, uz] = [points[j] - points[i], points[j + 1] - points[i + 1], points[j + 2] - points[i + 2]];
    const [vx, vy, vz] = [points[k] - points[i], points[k + 1] - points[i + 1], points[k + 2] - points[i + 2]];
    normals[f] = uy * vz - uz * vy;
    normals[f + 1] = uz * vx - ux * vz;
    normals[f + 2] = ux * vy - uy * vx;
  }
  return normals;
}

/** The sum of the normals of the triangles about each vertex. */
function vertexNormals(points, faces) {
  const [normals, flat] = [new Float32Array(points.length), faceNormals(points, faces)];
  for (let f = 0; f < faces.length; f++) {
    const [vertex, face] = [3 * faces[f], f - (f % 3)];
    for (let axis = 0; axis < 3; axis++) normals[vertex + axis] += flat[face + axis];
  }
  return normals;
}

/** Draws meshes with WebGL on a canvas of its own, which others copy from: browsers allow few such canvases. */
class ShadedMeshes {
  constructor(gl, faces) {
    this.gl = gl;
    this.faces = faces;
    this.meshes = new Map();
    this.program = ShadedMeshes.linked(gl);
    gl.useProgram(this.program);
    gl.enable(gl.DEPTH_TEST);
    this.places = Object.fromEntries(["turn", "zoom", "ink"].map((name) => [name, gl.getUniformLocation(this.program, name)]));
    this.corners = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.corners);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
  }

  static started(faces) {
    const gl = document.createElement("canvas").getContext("webgl2", { antialias: true });
    return gl ? new ShadedMeshes(gl, faces) : null;
  }

  static linked(gl) {
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(program));
    return program;
  }

  stored(points) {
    if (!this.meshes.has(points)) {
      const gl = this.gl;
      const mesh = gl.createVertexArray();
      gl.bindVertexArray(mesh);
      for (const [name, values] of [["position", points], ["normal", vertexNormals(points, this.faces)]]) {
        const place = gl.getAttribLocation(this.program, name);
        gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
        gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
        gl.enableVertexAttribArray(place);
        gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      }
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.corners);
      this.meshes.set(points, mesh);
    }
    return this.meshes.get(points);
  }

  draw(context, points, rows, zoom, ink) {
    const [gl, { width, height }] = [this.gl, context.canvas];
    if (gl.canvas.width !== width || gl.canvas.height !== height) Object.assign(gl.canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.bindVertexArray(this.stored(points));
    const columns = [0, 1, 2].flatMap((column) => rows.map((row) => row[column]));
    gl.uniformMatrix3fv(this.places.turn, false, columns);
    gl.uniform1f(this.places.zoom, zoom);
    gl.uniform3fv(this.places.ink, ink);
    gl.drawElements(gl.TRIANGLES, this.faces.length, gl.UNSIGNED_INT, 0);
    context.drawImage(gl.canvas, 0, 0);
  }
}

/** Draws meshes where there is no WebGL: triangles that face the reader, the farthest first. */
class PaintedMeshes {
  constructor(faces) {
    this.faces = faces;
  }

  draw(context, points, rows, zoom, ink) {
    const turned = rotated(points, rows);
    const normals = faceNormals(turned, this.faces);
    const seen = [];
    for (let f = 0; f < this.faces.length; f += 3) if (normals[f + 2] < 0) seen.push(f);
    const depth = (f) => turned[3 * this.faces[f] + 2];
    seen.sort((one, other) => depth(other) - depth(one));
    const half = context.canvas.width / 2;
    const at = (corner) => [half * (1 + zoom * turned[3 * corner]), half * (1 + zoom * turned[3 * corner + 1])];
    context.lineWidth = 0.6;
    for (const f of seen) {
      const [nx, ny, nz] = normals.subarray(f, f + 3);
      const lit = Math.max(0, (-0.36 * nx - 0.62 * ny - 0.7 * nz) / (Math.hypot(nx, ny, nz) || 1));
      context.fillStyle = context.strokeStyle = `rgb(${ink.map((part) => Math.round(255 * part * (0.42 + 0.56 * lit)))})`;
      context.beginPath();
      for (let corner = 0; corner < 3; corner++) context.lineTo(...at(this.faces[f + corner]));
      context.closePath();
      context.fill();
      context.stroke();
    }
  }
}

/** The bodies of one person, which turn together. */
class TurningBodies {
  constructor(element, answers, meshes, bones) {
    Object.assign(this, { element, answers, meshes, bones, turn: 0, tilt: 0, zoom: 1, visible: false, due: false });
    this.sliders = { turn: element.querySelector("input.turn"), tilt: element.querySelector("input.tilt") };
    this.ghost = element.querySelector("input.ghost");
    this.views = [...element.querySelectorAll("canvas.body")];
    this.views.forEach((canvas) => this.listen(canvas));
    for (const [name, slider] of Object.entries(this.sliders))
      slider.addEventListener("input", () => this.set({ [name]: Number(slider.value) }));
    for (const button of element.querySelectorAll("button.view"))
      button.addEventListener("click", () => this.set({ turn: Number(button.dataset.turn), tilt: Number(button.dataset.tilt) }));
    this.ghost.addEventListener("change", () => this.set({}));
    this.ghost.closest("label").hidden = !answers.truth;
    new IntersectionObserver((entries) => this.seen(entries[entries.length - 1].isIntersecting), { rootMargin: "200px" }).observe(element);
    new ResizeObserver(() => this.set({})).observe(element);
  }

  seen(visible) {
    this.visible = visible;
    this.set({});
  }

  set({ turn = this.turn, tilt = this.tilt, zoom = this.zoom }) {
    this.turn = ((((turn + 180) % 360) + 360) % 360) - 180;
    this.tilt = Math.max(-90, Math.min(90, tilt));
    this.zoom = Math.max(1, Math.min(MOST_ZOOM, zoom));
    this.sliders.turn.value = this.turn;
    this.sliders.tilt.value = this.tilt;
    if (!this.visible || this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.views.forEach((canvas) => this.draw(canvas));
    });
  }

  listen(canvas) {
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      last = event;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      const [dx, dy] = [event.clientX - last.clientX, event.clientY - last.clientY];
      last = event;
      this.set({ turn: this.turn - 0.7 * dx, tilt: this.tilt + (event.pointerType === "touch" ? 0 : 0.5 * dy) });
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
    canvas.addEventListener("dblclick", () => this.set({ turn: 0, tilt: 0, zoom: 1 }));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const steps = {
      ArrowLeft: { turn: this.turn + 10 },
      ArrowRight: { turn: this.turn - 10 },
      ArrowUp: { tilt: this.tilt - 10 },
      ArrowDown: { tilt: this.tilt + 10 },
      "+": { zoom: this.zoom * 1.25 },
      "=": { zoom: this.zoom * 1.25 },
      "-": { zoom: this.zoom / 1.25 },
      Home: { turn: 0, tilt: 0, zoom: 1 },
    };
    if (!steps[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.set(steps[event.key]);
  }

  draw(canvas) {
    const size = Math.max(1, Math.round(canvas.clientWidth * Math.min(2, window.devicePixelRatio || 1)));
    if (canvas.width !== size || canvas.height !== size) Object.assign(canvas, { width: size, height: size });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, size, size);
    const [rows, zoom, answer] = [rotation(this.turn, this.tilt), FITTING * this.zoom, this.answers[canvas.dataset.answer]];
    if (answer.vertices) this.meshes.draw(context, answer.vertices, rows, zoom, answer.ink);
    else this.skeleton(context, rotated(answer.joints, rows), zoom, 0.022, (side) => SIDE_INK[side]);
    if (this.ghost.checked && this.answers.truth && canvas.dataset.answer !== "truth")
      this.skeleton(context, rotated(this.answers.truth.joints, rows), zoom, 0.008, () => "#111");
  }

  skeleton(context, joints, zoom, width, ink) {
    const half = context.canvas.width / 2;
    const at = (joint) => [half * (1 + zoom * joints[3 * joint]), half * (1 + zoom * joints[3 * joint + 1])];
    const depth = ([one, other]) => joints[3 * one + 2] + joints[3 * other + 2];
    const order = this.bones.map((bone) => bone).sort((one, other) => depth(other.ends) - depth(one.ends));
    context.lineCap = "round";
    for (const { ends, side } of order) {
      context.beginPath();
      for (const joint of ends) context.lineTo(...at(joint));
      context.strokeStyle = ink(side);
      context.lineWidth = Math.max(1.5, 2 * half * width);
      context.stroke();
    }
  }
}

/** The color of a custom property as three shares of one. */
function inkOf(name) {
  const written = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((start) => parseInt(written.slice(start, start + 2), 16) / 255);
}

function startBodies(told) {
  const faces = new Uint32Array(bytesOf(told.faces));
  const meshes = (faces.length && ShadedMeshes.started(faces)) || new PaintedMeshes(faces);
  document.documentElement.dataset.drawnBy = meshes instanceof ShadedMeshes ? "webgl" : "canvas";
  const bones = told.bones.map((ends, index) => ({ ends, side: told.sides[index] }));
  const inks = Object.fromEntries(told.branches.map((branch, index) => [branch, inkOf(`--body${index % told.inks}`)]));
  told.exhibits.forEach((exhibit, index) => {
    const element = document.querySelector(`[data-exhibit="${index}"]`);
    const shares = (numbers) => Float32Array.from(numbers, (value) => value / told.steps);
    const answers = Object.create(null);
    for (const [name, answer] of Object.entries(exhibit.answers))
      answers[name] = {
        joints: shares(answer.joints),
        vertices: answer.vertices && shares(new Int16Array(bytesOf(answer.vertices))),
        ink: Object.hasOwn(inks, name) ? inks[name] : inkOf("--bodytruth"),
      };
    new TurningBodies(element, answers, meshes, bones);
  });
}
